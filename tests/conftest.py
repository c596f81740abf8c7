"""What every test may use: a real S3 server in a process of its own, and a fresh bucket on it."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from job.demo.s3_server import S3Server
from job.storage import Storage, open_storage
from tests import ceph, stores
from tests.ceph import CephServer
from tests.e2e import jobs
from tests.ports import own_port
from tests.storage.wire import Interpose, Rule, interposed
from tests.tiny import build_model
from tests.zygote import Zygote

# How long an example takes is the machine's business. (In CI the examples are the same each time.)
settings.register_profile(
    "at any pace", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("at any pace")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A `FORGE_*` variable of whoever runs the tests must not reach them."""
    for name in [name for name in os.environ if name.startswith("FORGE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _an_environment_of_its_own() -> Iterator[None]:
    """What a test sets for this process, as a benchmark's `main` does, must not reach the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole session. Keep tests apart by their buckets."""
    with S3Server() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[CephServer]:
    """Another real store, for the tests that ask for it."""
    ceph.required()
    with CephServer() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; one for the whole session."""
    return build_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote() as server:
        yield server


@pytest.fixture
def forked_jobs(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that `tests.e2e.jobs` starts come from a fork server."""
    monkeypatch.setattr(jobs, "fork_server", zygote)


@pytest.fixture
def aws_env(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which boto3, and every subprocess, reaches the server and nothing else."""
    stores.use(s3_server.env, monkeypatch)
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


@pytest.fixture
def bucket(s3_server: S3Server, aws_env: dict[str, str]) -> str:
    """`s3://<a fresh bucket>`, reachable from this process and its children."""
    name = f"test-{uuid.uuid4().hex}"
    s3_server.create_bucket(name)
    return f"s3://{name}"


@pytest.fixture
def interpose(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Interpose]:
    """`interpose(rule)`: storages opened from then on speak to S3 through the rule."""
    with ExitStack() as stack:

        def start(rule: Rule) -> None:
            url = stack.enter_context(interposed(s3_server, rule))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")

        yield start


@pytest.fixture(params=["s3", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A run's storage, on each backend in turn."""
    if request.param == "s3":
        return open_storage(request.getfixturevalue("bucket") + "/out/run-1")
    return open_storage(str(tmp_path / "out" / "run-1"))


@pytest.fixture
def directory(tmp_path: Path) -> Storage:
    """Where the backend makes no difference."""
    return open_storage(str(tmp_path / "out" / "run-1"))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One of this machine at which nobody listens, and nobody will."""
    with own_port() as port:
        yield port


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with the given options, as memory-backed volumes are; needs to be root."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"volume-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
