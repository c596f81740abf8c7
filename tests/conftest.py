"""What every test may use: a real S3 server in a process of its own, and a fresh bucket on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from job.demo.s3_server import S3Server


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `FORGE_*` variable of whoever runs the tests must not reach them."""
    for name in [name for name in os.environ if name.startswith("FORGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole session. Keep tests apart by their buckets."""
    with S3Server() as server:
        yield server


@pytest.fixture
def aws_env(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which boto3, and every subprocess, reaches the server and nothing else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    env = s3_server.env | {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.fixture
def bucket(s3_server: S3Server, aws_env: dict[str, str]) -> str:
    """`s3://<a fresh bucket>`, reachable from this process and its children."""
    name = f"test-{uuid.uuid4().hex}"
    s3_server.create_bucket(name)
    return f"s3://{name}"
