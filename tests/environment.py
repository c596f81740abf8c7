"""A short run of the tiny model against the real S3 server: its environment, and commands in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from job.storage import open_storage
from tests.tiny import write_rows


def pod_env(bucket: str, model: str, folder: Path, *, rows: int) -> dict[str, str]:
    """What a run needs in an image, which has its own folders; so many rows wait in the bucket."""
    data = write_rows(folder / "rows.jsonl", rows)
    open_storage(bucket).upload("data/rows.jsonl", data)
    return {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"{bucket}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"{bucket}/out",
        "FORGE_PROFILE": "fast_dev",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": model,
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_LOG_FORMAT": "json",
        "HF_HUB_OFFLINE": "1",
    }


def run_env(bucket: str, model: Path, folder: Path, *, rows: int) -> dict[str, str]:
    """What a run needs as a plain process; `folder` takes all that it writes."""
    return pod_env(bucket, str(model), folder, rows=rows) | {
        "FORGE_ENGINE": "reference",
        "FORGE_LORA_DROPOUT": "0.05",
        "FORGE_WORK_DIR": str(folder / "work"),
        "FORGE_TERMINATION_LOG": str(folder / "termination-log"),
    }


def python(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the job, in an interpreter of its own, and what it said."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
