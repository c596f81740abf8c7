"""The rights that docs/kubernetes.md gives are enough, on a store that enforces them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from job.storage import open_storage
from tests import stores
from tests.ceph import TENANT_KEYS, CephServer
from tests.e2e.jobs import run
from tests.k8s.chart import ROOT
from tests.k8s.test_documentation import policies
from tests.tiny import write_rows

_BUCKET = "rights"


@pytest.fixture
def tenant(
    ceph_server: CephServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, str]:
    """The environment of a user who may do what the page's policy says, and nothing else."""
    stores.use(ceph_server.env, monkeypatch)
    ceph_server.create_bucket(_BUCKET)
    open_storage(f"s3://{_BUCKET}").upload("data/rows.jsonl", write_rows(tmp_path / "r.jsonl", 70))
    policy = json.dumps(policies()[1]).replace(":::bucket", f":::{_BUCKET}")
    boto3.session.Session().client("s3").put_bucket_policy(Bucket=_BUCKET, Policy=policy)
    stores.use({**ceph_server.env, **TENANT_KEYS}, monkeypatch)
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def _run_env(tiny_model: Path, folder: Path, output: str) -> dict[str, str]:
    return {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"s3://{_BUCKET}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"s3://{_BUCKET}/{output}",
        "FORGE_PROFILE": "fast_dev",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": str(tiny_model),
        "FORGE_ENGINE": "reference",
        "FORGE_MAX_STEPS": "6",
        "FORGE_SAVE_STEPS": "1",  # so that old checkpoints are deleted, too
        "FORGE_SAVE_TOTAL_LIMIT": "1",
        "FORGE_EVAL_MAX_ROWS": "4",
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_WORK_DIR": str(folder / "work"),
        "FORGE_LOG_FORMAT": "json",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_policy_is_enough_for_a_run_and_no_more(
    tenant: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    done = run(_run_env(tiny_model, tmp_path, "runs"), tmp_path / "run.log")
    assert done.code == 0, done.log
    assert not [e for e in done.events() if "denied" in str(e.get("message", "")).lower()]

    large = tmp_path / "large"
    large.write_bytes(os.urandom(20 << 20))
    storage = open_storage(f"s3://{_BUCKET}/runs/parts")
    storage.upload("large", large)  # in parts
    storage.delete(["large"])

    elsewhere = _run_env(tiny_model, tmp_path, "other")
    refused = subprocess.run(
        [sys.executable, "-m", "job", "validate"],
        env={**os.environ, **elsewhere},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert refused.returncode == 77, refused.stdout + refused.stderr
