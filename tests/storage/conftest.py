"""Both backends as one fixture, and the way to S3 through a rule of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.storage import Storage, open_storage
from tests.storage.wire import Interpose, Rule, interposed


@pytest.fixture(params=["s3", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        return open_storage(request.getfixturevalue("bucket") + "/some prefix/é")
    return open_storage(str(tmp_path / "root"))


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
