"""A run that goes nowhere ends, and says why."""

from __future__ import annotations

import pytest

from job.errors import NoProgress
from job.ledger import Checkpoint, Ledger, give_up_without_progress, read_record
from job.storage import Storage


def attempt(storage: Storage, end: int | None, *, reaches: int | None = None) -> None:
    """One attempt that ends with a code, or is killed."""
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    if reaches is not None:
        checkpoint = Checkpoint(
            step=reaches,
            attempt=ledger.attempt,
            key=f"checkpoints/{reaches:08d}-{ledger.attempt:03d}/",
            manifest_sha256="0" * 64,
            bytes=1,
        )
        ledger.update(lambda record: record.checkpoints.append(checkpoint))
    if end is not None:
        ledger.close("preempted" if end == 75 else "failed", end, f"ended with {end}")


def asked(storage: Storage, limit: int = 3) -> Ledger:
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    give_up_without_progress(ledger, limit)
    return ledger


def test_attempts_that_go_nowhere_are_counted(directory: Storage) -> None:
    attempt(directory, 75, reaches=10)
    ends: list[int | None] = [None, 75, 70]
    for end in ends:
        attempt(directory, end)
    with pytest.raises(NoProgress) as caught:
        asked(directory)
    text = str(caught.value)
    assert caught.value.exit_code == 70
    assert "3 attempts in a row: ended at step 10, where they began" in text
    assert "attempt 4 (began" in text
    assert "exit 70: ended with 70" in text
    assert "was killed" in text
    assert "FORGE_MAX_ATTEMPTS_WITHOUT_PROGRESS" in text


def test_one_fewer_goes_on(directory: Storage) -> None:
    few: list[int | None] = [None, 75]
    for end in few:
        attempt(directory, end)
    asked(directory)


def test_a_step_forward_counts_from_anew(directory: Storage) -> None:
    attempt(directory, 75)
    attempt(directory, 75)
    attempt(directory, None, reaches=5)
    more: list[int | None] = [75, None]
    for end in more:
        attempt(directory, end)
    asked(directory)


def test_answers_and_exports_that_are_kept_are_a_step_forward(directory: Storage) -> None:
    for _ in range(5):
        ledger = Ledger.claim(directory, "run-1", version="1", conditional_writes=True)
        ledger.update(lambda record: setattr(record.current, "advanced", True))
        ledger.close("preempted", 75, "while it was evaluated")
    asked(directory)


def test_who_starts_it_again_gets_as_many_tries_again(directory: Storage) -> None:
    for _ in range(3):
        attempt(directory, 75)
    with pytest.raises(NoProgress):
        asked(directory)
    found = read_record(directory)
    assert found is not None
    assert found[0].current.gave_up
    attempt(directory, 75)
    attempt(directory, 75)
    asked(directory)


@pytest.mark.parametrize("end", [65, 69, 77, 78])
def test_ends_that_somebody_mends_are_no_livelock(directory: Storage, end: int) -> None:
    for _ in range(5):
        attempt(directory, end)
    asked(directory)


def test_zero_never_gives_up(directory: Storage) -> None:
    for _ in range(20):
        attempt(directory, None)
    asked(directory, limit=0)
