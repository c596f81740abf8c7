"""Changes of the record: answers that get lost, newer attempts, stores without conditions."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from job.errors import AccessDenied, Fenced, JobError, Unavailable
from job.ledger import (
    RECORD_KEY,
    Progress,
    RunRecord,
)
from job.storage import Conflict, Storage, probe
from job.storage.base import Unanswered
from tests.ledger.claimed import claim, commit, steps, stored
from tests.ledger.wrapped import Failing, Hanging, Wrapped


def test_an_update_is_stored_and_returned(storage: Storage) -> None:
    ledger = claim(storage)
    returned = ledger.update(lambda record: setattr(record, "effective_batch_size", 8))
    assert returned == ledger.record == stored(storage)
    assert returned.effective_batch_size == 8
    ledger.set_fields(results={"a": 1}, fingerprint={"seed": 3407})
    assert stored(storage).results == {"a": 1}
    assert stored(storage).fingerprint == {"seed": 3407}


@pytest.mark.parametrize("lost", [Conflict(), Unanswered("the connection broke")])
def test_a_swap_whose_answer_was_lost_is_adopted(storage: Storage, lost: Exception) -> None:
    wrapped = Wrapped(storage)
    ledger = claim(wrapped)
    wrapped.after = Failing("write", RECORD_KEY, lost)
    commit(ledger, 50)
    assert steps(stored(storage)) == steps(ledger.record) == [50]
    commit(ledger, 60)
    assert steps(stored(storage)) == [50, 60]


def test_a_swap_that_was_lost_with_the_store_is_not_made_twice(storage: Storage) -> None:
    wrapped = Wrapped(storage)
    ledger = claim(wrapped)
    wrapped.after = Failing("write", RECORD_KEY, Unanswered("the connection broke"))
    wrapped.before = Failing("read", RECORD_KEY, Unavailable("and stays broken"))
    with pytest.raises(Unavailable, match="stays broken"):
        commit(ledger, 50)
    commit(ledger, 60)
    assert steps(stored(storage)) == [50, 60]


def test_every_other_answer_is_lost_and_nothing_else(storage: Storage) -> None:
    wrapped = Wrapped(storage)
    ledger = claim(wrapped)
    seen = itertools.count(1)

    def lose(verb: str, _key: str) -> None:
        if verb == "write" and next(seen) % 2 == 0:
            raise Unanswered("the connection broke")

    wrapped.after = lose
    for step in range(1, 6):
        commit(ledger, step)
    assert steps(stored(storage)) == [1, 2, 3, 4, 5]


def test_a_swap_that_failed_finds_out_of_a_newer_attempt(storage: Storage) -> None:
    wrapped = Wrapped(storage)
    ledger = claim(wrapped)
    claim(storage)
    wrapped.before = Failing("write", RECORD_KEY, Unanswered("down"))
    with pytest.raises(Fenced):
        commit(ledger, 50)


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("no")])
def test_a_failed_swap_changes_nothing(directory: Storage, error: JobError) -> None:
    wrapped = Wrapped(directory)
    ledger = claim(wrapped)
    before = ledger.record
    wrapped.before = Failing("write", RECORD_KEY, error)
    with pytest.raises(type(error)):
        commit(ledger, 50)
    assert ledger.record == before == stored(directory)
    commit(ledger, 50)
    assert steps(stored(directory)) == [50]


def test_a_change_that_fails_changes_nothing(directory: Storage) -> None:
    ledger = claim(directory)

    def change(record: RunRecord) -> None:
        record.attempts.clear()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.update(change)
    assert len(ledger.record.attempts) == len(stored(directory).attempts) == 1


def test_a_store_that_refuses_every_swap_is_given_up(directory: Storage) -> None:
    wrapped = Wrapped(directory)
    ledger = claim(wrapped)
    wrapped.before = Failing("write", RECORD_KEY, *[Conflict()] * 100)
    with pytest.raises(JobError, match="the swap keeps failing"):
        commit(ledger, 50)


def test_reading_the_record_never_waits_for_a_swap(directory: Storage) -> None:
    wrapped = Wrapped(directory)
    ledger = claim(wrapped)
    wrapped.before = hanging = Hanging("write")
    swap = threading.Thread(target=lambda: ledger.heartbeat(Progress(step=3)))
    swap.start()
    assert hanging.began.wait(60)
    assert (ledger.record.progress.step, ledger.attempt) == (0, 1)
    hanging.go_on.set()
    swap.join()
    assert ledger.record.progress.step == 3


def test_threads_lose_no_change(storage: Storage) -> None:
    ledger = claim(storage)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda step: commit(ledger, step), range(12)))
    assert sorted(steps(stored(storage))) == list(range(12))


# -- a store without conditional writes -----------------------------------------------------------


def test_without_conditions_reading_before_writing_still_fences(storage: Storage) -> None:
    careless = Wrapped(storage, ignores_conditions=True)
    assert probe(careless) is False
    older = claim(careless, conditional_writes=False)
    assert stored(storage).conditional_writes is False
    commit(older, 10)

    newer = claim(careless, conditional_writes=False)
    before = storage.read(RECORD_KEY)
    for _ in range(2):
        with pytest.raises(Fenced, match="attempt 2 now owns"):
            older.heartbeat(Progress(step=11))
    assert storage.read(RECORD_KEY) == before

    commit(newer, 20)
    newer.heartbeat(Progress(step=21))
    assert (steps(stored(storage)), stored(storage).progress.step) == ([10, 20], 21)


def test_without_conditions_no_condition_is_sent(directory: Storage) -> None:
    """Some stores answer a header that they don't know with an error."""
    sent: list[dict[str, Any]] = []

    class Listening(Wrapped):
        def write(self, key: str, data: bytes, **conditions: Any) -> str:
            sent.append(conditions)
            return super().write(key, data, **conditions)

    commit(claim(Listening(directory), conditional_writes=False), 10)
    assert len(sent) == 2
    assert not any(value for conditions in sent for value in conditions.values())
