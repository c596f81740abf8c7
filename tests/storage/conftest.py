"""Both backends, and each store, as one fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from job.storage import Storage, open_storage, probe
from tests import stores


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
