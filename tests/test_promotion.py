"""`promoted.json`: the newest adapter that passed, whoever else promotes at the same time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from job.errors import JobError
from job.gate import PASSED
from job.ledger import Adapter, Attempt, Holder, RunRecord
from job.promotion import PROMOTED_KEY, promote
from job.storage import Storage, open_storage


def a_record(run_id: str, ended_at: str, gate: str = PASSED) -> RunRecord:
    holder = Holder(token="t", host="pod")
    return RunRecord(
        run_id=run_id,
        attempt=1,
        status="succeeded",
        adapter=Adapter(key="adapter/", manifest_sha256="0" * 64, bytes=1, step=9),
        results={"gate": gate, "evaluation": {"adapter": {"exact": {"rate": 0.9}}}},
        attempts=[Attempt(number=1, holder=holder, ended_at=ended_at)],
    )


def promoted(root: Storage) -> dict[str, Any]:
    return dict(json.loads(root.read(PROMOTED_KEY)[0]))


def test_serving_finds_the_adapter_its_figures_and_the_one_before(storage: Storage) -> None:
    assert promote(storage, "s3://b/runs/a", a_record("a", "2026-11-26T10:00:00+00:00"))
    assert promote(storage, "s3://b/runs/b", a_record("b", "2026-11-26T11:00:00+00:00"))
    assert promoted(storage) == {
        "run_id": "b",
        "run_uri": "s3://b/runs/b",
        "adapter_uri": "s3://b/runs/b/adapter/",
        "manifest_sha256": "0" * 64,
        "step": 9,
        "ended_at": "2026-11-26T11:00:00+00:00",
        "exact": {"rate": 0.9},
        "previous": {
            "run_id": "a",
            "adapter_uri": "s3://b/runs/a/adapter/",
            "ended_at": "2026-11-26T10:00:00+00:00",
        },
    }


def test_an_older_run_that_is_started_again_changes_nothing(directory: Storage) -> None:
    older, newer = a_record("a", "2026-11-26T10:00:00+00:00"), a_record("b", "2026-11-26T11:00")
    assert promote(directory, "u/b", newer)
    assert not promote(directory, "u/a", older)
    assert not promote(directory, "u/b", newer), "it is there already"
    assert promoted(directory)["run_id"] == "b"


@pytest.mark.parametrize("gate", ["not set", "exactly right 10.0%, FORGE_GATE_MIN_EXACT is 90.0%"])
def test_nothing_is_promoted_without_a_passed_gate(directory: Storage, gate: str) -> None:
    assert not promote(directory, "u/a", a_record("a", "2026-11-26T10:00", gate))
    assert list(directory.list("")) == []


@pytest.mark.parametrize("content", [b"not json", b"[]"])
def test_what_is_not_ours_is_replaced(directory: Storage, content: bytes) -> None:
    directory.write(PROMOTED_KEY, content)
    assert promote(directory, "u/a", a_record("a", "2026-11-26T10:00"))
    assert promoted(directory)["previous"] is None


def test_the_newest_of_many_at_once_stays(bucket: str) -> None:
    def one(number: int) -> bool:
        record = a_record(f"run-{number}", f"2026-11-26T10:00:{number:02}+00:00")
        return promote(open_storage(f"{bucket}/runs"), f"{bucket}/runs/run-{number}", record)

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(one, range(6)))
    assert won[-1], "the newest one"
    assert promoted(open_storage(f"{bucket}/runs"))["run_id"] == "run-5"


def test_somebody_who_changes_it_all_the_time_is_an_error(
    directory: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, others = directory.write, count()

    def overtaken(key: str, data: bytes, **conditions: Any) -> str:
        if key == PROMOTED_KEY:
            ordinary(key, json.dumps({"other": next(others)}).encode())
        return ordinary(key, data, **conditions)

    monkeypatch.setattr(directory, "write", overtaken)
    with pytest.raises(JobError, match=r"changed by other runs 10 times"):
        promote(directory, "u/a", a_record("a", "2026-11-26T10:00"))
