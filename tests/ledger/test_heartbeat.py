"""The heartbeat: progress into the record, through outages, until somebody else owns the run."""

from __future__ import annotations

import logging
import threading

import pytest

from job.errors import AccessDenied, Fenced, Unavailable
from job.ledger import FINISHED, RECORD_KEY, Heartbeat, Ledger, Progress, Status, read_record
from job.lifecycle import StopToken
from job.storage import Storage
from tests.ledger.wrapped import Failing, Hanging, Wrapped, wait_until

BEAT = 0.005
"""Seconds; short, so that the tests are."""


class Counting:
    """Progress that is one step further each time it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Progress:
        self.asked += 1
        return Progress(phase="training", step=self.asked)


def claim(storage: Storage) -> Ledger:
    return Ledger.claim(storage, "run-1", version="1", conditional_writes=True)


def stored_step(storage: Storage) -> int:
    found = read_record(storage)
    assert found is not None
    return found[0].progress.step


def test_it_beats(storage: Storage) -> None:
    ledger, stop = claim(storage), StopToken()
    with Heartbeat(ledger, Counting(), stop, BEAT):
        wait_until(lambda: stored_step(storage) >= 3)
    assert not stop.requested


@pytest.mark.parametrize("status", FINISHED)
def test_it_leaves_a_finished_run_as_it_ended(storage: Storage, status: Status) -> None:
    ledger, progress = claim(storage), Counting()
    ledger.close(status, 0, "finished", Progress(phase="finished", step=0))
    with Heartbeat(ledger, progress, StopToken(), BEAT):
        wait_until(lambda: progress.asked >= 3)
    found = read_record(storage)
    assert found is not None
    assert found[0].progress.phase == "finished"


def test_it_ends_with_its_block(directory: Storage) -> None:
    progress = Counting()
    with Heartbeat(claim(directory), progress, StopToken(), BEAT):
        wait_until(lambda: progress.asked >= 1)
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("token ran out"), OSError(5)])
def test_it_survives_what_may_pass(
    directory: Storage, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = Wrapped(directory)
    ledger, stop = claim(wrapped), StopToken()
    failing = Failing("write", RECORD_KEY, error, error)
    wrapped.before = failing
    with caplog.at_level(logging.WARNING), Heartbeat(ledger, Counting(), stop, BEAT):
        wait_until(lambda: stored_step(directory) >= 3)
    assert failing.left == []
    assert not stop.requested
    assert sum("training goes on" in message for message in caplog.messages) == 2


def test_it_survives_a_progress_that_can_not_be_told(directory: Storage) -> None:
    faults = [ZeroDivisionError()]

    def progress() -> Progress:
        if faults:
            raise faults.pop()
        return Progress(step=7)

    with Heartbeat(claim(directory), progress, StopToken(), BEAT):
        wait_until(lambda: stored_step(directory) == 7)


def test_a_newer_attempt_ends_the_run(storage: Storage) -> None:
    ledger, stop, count = claim(storage), StopToken(), Counting()
    newer: list[Ledger] = []

    def progress() -> Progress:
        if count.asked == 2:
            newer.append(claim(storage))
        return count()

    with Heartbeat(ledger, progress, stop, BEAT):
        wait_until(lambda: stop.requested)
    assert isinstance(stop.cause, Fenced)
    assert "attempt 2 now owns" in str(stop.cause)
    assert count.asked == 3, "and no beat after that"
    newer[0].heartbeat(Progress(step=1))


def test_a_beat_that_hangs_does_not_hold_up_the_exit(directory: Storage) -> None:
    wrapped = Wrapped(directory)
    ledger = claim(wrapped)
    wrapped.before = hanging = Hanging("write")
    with Heartbeat(ledger, Counting(), StopToken(), BEAT):
        assert hanging.began.wait(60)
    assert not hanging.go_on.is_set(), "left while the beat still hung"
    hanging.go_on.set()
    wait_until(lambda: not any(t.name == "heartbeat" for t in threading.enumerate()))


def test_runs_that_start_together_do_not_beat_together(
    directory: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[float | None] = []

    class Ended(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            first.append(timeout)
            return True

    ledger = claim(directory)
    for _ in range(50):
        heartbeat = Heartbeat(ledger, Counting(), StopToken(), 30.0)
        monkeypatch.setattr(heartbeat, "_ended", Ended())
        heartbeat._run()

    # Spread over the whole interval: none of its thirds is empty (but once in half a billion).
    assert {int((pause or 0) // 10) for pause in first} == {0, 1, 2}
