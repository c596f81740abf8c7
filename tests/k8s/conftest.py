"""A release whose Job can run on this machine: the tiny model, the S3 server, a folder as mount."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.storage import open_storage
from tests.k8s.chart import Manifest, render
from tests.ports import own_port
from tests.tiny import write_rows


@pytest.fixture
def release(
    bucket: str, tiny_model: Path, tmp_path: Path
) -> Iterator[Callable[..., list[Manifest]]]:
    """The manifests of a release with these settings on top."""
    rows = write_rows(tmp_path / "rows.jsonl", 70)
    open_storage(bucket).upload("data/rows.jsonl", rows)
    (tmp_path / "termination-log").touch()
    (tmp_path / "scratch").mkdir()

    def rendered(**settings: Any) -> list[Manifest]:
        path = tmp_path / "values.yaml"
        values = _values(bucket, tiny_model, tmp_path, settings)
        path.write_text(json.dumps(values | {"metrics": {"port": port}}))
        return render(path)

    with own_port() as port:
        yield rendered


def _values(bucket: str, model: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "image": {"repository": "forge-job"},
        "profile": "fast_dev",
        "datasetUri": f"{bucket}/data/rows.jsonl",
        "outputUri": f"{bucket}/out",
        "credentials": {"existingSecret": "forge-job-s3"},
        "modelFamily": "smollm2",
        "model": str(model),
        "modelVolume": {"source": {"emptyDir": {}}, "mountPath": str(model)},
        "scratch": {"mountPath": str(folder / "scratch")},
        "gpu": {"enabled": False},
        "extraEnv": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
        "settings": {
            "engine": "reference",
            "learningRate": 0.01,
            "maxSteps": 30,
            "evalMaxRows": 4,
            "evalSteps": 10,
            "saveSteps": 8,
            "metricsLingerSeconds": 0,
            "logFormat": "json",
            "terminationLog": str(folder / "termination-log"),
            **settings,
        },
    }
