"""The S3 stores that tests may be run against, and the way to a fresh place on each."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3
import pytest
from botocore.exceptions import ClientError

ENDPOINT = os.environ.get("FORGE_TEST_S3_ENDPOINT")
"""Any S3 endpoint; the ordinary AWS variables say how to sign."""

_BUCKET = os.environ.get("FORGE_TEST_S3_BUCKET")
"""Where no bucket may be created there: everything then lies below a prefix of its own."""

# Read now: a fixture takes these variables away from the tests that are not about this store.
_GIVEN = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

ALL = ("embedded", "ceph", *(["given"] if ENDPOINT else []))
KNOWN_TO_BE_CONDITIONAL = ("embedded", "ceph", "local")


def env_of(name: str, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The AWS variables with which a store is reached; starts it where it is one of ours."""
    if name == "given":
        return _GIVEN | {"AWS_ENDPOINT_URL_S3": ENDPOINT or ""}
    server = request.getfixturevalue("s3_server" if name == "embedded" else "ceph_server")
    env: dict[str, str] = server.env
    return env


def use(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, and every subprocess, reaches that store and nothing else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nowhere = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in (nowhere | dict(env)).items():
        monkeypatch.setenv(name, value)


@contextmanager
def fresh_place() -> Iterator[str]:
    """An empty `s3://…` of the store that the environment names; emptied again at the end."""
    bucket, prefix = f"forge-test-{uuid.uuid4().hex}", ""
    # A session of its own: the default one keeps the credentials of the first store.
    client = boto3.session.Session().client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
    if _BUCKET and os.environ["AWS_ENDPOINT_URL_S3"] == ENDPOINT:
        bucket, prefix = _BUCKET, f"{bucket}/"
    else:
        client.create_bucket(Bucket=bucket)
    try:
        yield f"s3://{bucket}/{prefix}".rstrip("/")
    finally:
        if os.environ["AWS_ENDPOINT_URL_S3"] == ENDPOINT:
            _remove(bucket, prefix)
        client.close()


def _remove(bucket: str, prefix: str) -> None:
    """Ours are in memory; a store of somebody's keeps what we leave there."""
    s3 = boto3.session.Session().resource("s3", endpoint_url=ENDPOINT)
    s3.Bucket(bucket).objects.filter(Prefix=prefix).delete()
    if not prefix:
        try:
            s3.Bucket(bucket).delete()
        except ClientError:
            return  # it is empty, and that is what matters
