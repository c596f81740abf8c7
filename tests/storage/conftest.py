"""Both backends as one fixture, and the way to S3 through a rule of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.storage import Storage, open_storage, probe
from tests import stores
from tests.storage.wire import Interpose, Rule, interposed


@pytest.fixture(params=["local", *stores.ALL])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    """Each backend, and each store, in turn."""
    if request.param == "local":
        yield open_storage(str(tmp_path / "root"))
        return
    stores.use(stores.env_of(request.param, request), monkeypatch)
    with stores.fresh_place() as place:
        yield open_storage(f"{place}/some prefix/é")


@pytest.fixture
def conditional(storage: Storage, request: pytest.FixtureRequest) -> Storage:
    """A store that honours conditional writes; who is known to must."""
    if not probe(storage):
        if request.node.callspec.params["storage"] in stores.KNOWN_TO_BE_CONDITIONAL:
            pytest.fail("it ignores conditional writes")
        pytest.skip("this store ignores conditional writes: fencing is read-before-write on it")
    return storage


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
