"""Stores that do not keep the promise of a conditional write."""

from __future__ import annotations

import pytest

from job.errors import (
    JobError,
)
from job.storage import open_storage, probe
from tests.storage.wire import Answer, Call, Interpose, ignores_conditions, s3_error


def test_probe_of_a_store_that_ignores_conditions(interpose: Interpose, bucket: str) -> None:
    interpose(ignores_conditions)
    storage = open_storage(bucket)

    assert probe(storage) is False
    assert list(storage.list()) == []


@pytest.mark.parametrize("ignored", ["if-match", "if-none-match"])
def test_probe_of_a_store_that_ignores_one_condition(
    interpose: Interpose, bucket: str, ignored: str
) -> None:
    def strip(call: Call) -> None:
        for name in [name for name in call.headers if name.lower() == ignored]:
            del call.headers[name]

    interpose(strip)
    assert probe(open_storage(bucket)) is False


def test_probe_of_a_store_that_refuses_conditions(interpose: Interpose, bucket: str) -> None:
    def refuse(call: Call) -> Answer | None:
        conditional = any(name.lower().startswith("if-") for name in call.headers)
        return s3_error(501, "NotImplemented") if conditional else None

    interpose(refuse)
    storage = open_storage(bucket)

    assert probe(storage) is False
    assert list(storage.list()) == []


def test_probe_of_a_store_that_returns_something_else(interpose: Interpose, bucket: str) -> None:
    stale = Answer(200, b"stale", {"ETag": '"e"'})
    interpose(lambda call: stale if call.method == "GET" else None)

    with pytest.raises(JobError, match="consistent"):
        probe(open_storage(bucket))
