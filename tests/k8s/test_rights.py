"""The rights that docs/kubernetes.md gives are enough, on a store that enforces them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import botocore.session
import pytest

from job.storage import open_storage
from tests import stores
from tests.ceph import TENANT_KEYS, CephServer
from tests.e2e.jobs import run
from tests.k8s.chart import CHART, ROOT, env_of, only, pod_of, render
from tests.k8s.test_documentation import policies
from tests.tiny import write_rows

_BUCKET = "rights"
_VERSIONED = "rights-versioned"


@pytest.fixture
def owner(ceph_server: CephServer, monkeypatch: pytest.MonkeyPatch) -> CephServer:
    stores.use(ceph_server.env, monkeypatch)
    return ceph_server


@pytest.fixture
def tenant(owner: CephServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user who may do what the page's policy says, and nothing else, in two buckets."""
    rows = write_rows(tmp_path / "r.jsonl", 70)
    client = boto3.session.Session().client("s3")
    for bucket in (_BUCKET, _VERSIONED):
        owner.create_bucket(bucket)
        if bucket == _VERSIONED:
            client.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
        open_storage(f"s3://{bucket}").upload("data/rows.jsonl", rows)
        policy = json.dumps(policies()[1]).replace(":::bucket", f":::{bucket}")
        client.put_bucket_policy(Bucket=bucket, Policy=policy)
    stores.use({**owner.env, **TENANT_KEYS}, monkeypatch)


def _run_env(tiny_model: Path, folder: Path, output: str, bucket: str = _BUCKET) -> dict[str, str]:
    return {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"s3://{bucket}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"s3://{bucket}/{output}",
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


def _validated(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "job", "validate"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.usefixtures("tenant", "forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_policy_is_enough_for_a_run_and_no_more(tiny_model: Path, tmp_path: Path) -> None:
    done = run(_run_env(tiny_model, tmp_path, "runs"), tmp_path / "run.log")
    assert done.code == 0, done.log
    assert not [e for e in done.events() if "denied" in str(e.get("message", "")).lower()]

    large = tmp_path / "large"
    large.write_bytes(os.urandom(20 << 20))
    storage = open_storage(f"s3://{_BUCKET}/runs/parts")
    storage.upload("large", large)  # in parts
    storage.delete(["large"])

    refused = _validated(_run_env(tiny_model, tmp_path, "other"))
    assert refused.returncode == 77, refused.stdout + refused.stderr
    # Data are fetched by their version from the first attempt on, which is a right of its own.
    versioned = _validated(_run_env(tiny_model, tmp_path, "runs", _VERSIONED))
    assert versioned.returncode == 0, versioned.stdout + versioned.stderr


def test_the_identity_of_aks_is_one_that_the_client_looks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AKS names its token in a variable that only Azure's clients read."""
    job = only(render(CHART / "examples" / "aks-spot-identity.yaml"), "Job")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in env_of(pod_of(job)["containers"][0]).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = botocore.session.Session().get_credentials()
    assert found is not None
    assert found.method == "assume-role-with-web-identity"
