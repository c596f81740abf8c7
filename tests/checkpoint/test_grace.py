"""What a preemption needs, learned and compared with what it is given."""

from __future__ import annotations

import logging

import pytest

from job.checkpoint import Grace
from job.checkpoint.grace import LEAVING_SECONDS
from job.ledger import Pace


def learned(grace: Grace, *, upload: float) -> None:
    grace.micro_batch(2.0)
    grace.written(3.0)
    grace.committed(upload, 1.0)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_nothing_is_known_until_an_upload_was_measured() -> None:
    grace = Grace(30)
    grace.micro_batch(100)
    grace.written(100)
    assert grace.needed_seconds is None
    assert grace.durable_seconds == 0


def test_what_is_needed_is_the_sum_of_the_way(caplog: pytest.LogCaptureFixture) -> None:
    told: list[float] = []
    grace = Grace(30, on_needed=told.append)
    learned(grace, upload=4.0)
    assert grace.needed_seconds == 2 + 3 + 4 + 1 + LEAVING_SECONDS
    assert grace.durable_seconds == 4 + 1 + LEAVING_SECONDS
    assert told == [grace.needed_seconds]
    assert warnings(caplog) == []


def test_too_short_is_said_once_and_again_when_it_grows(caplog: pytest.LogCaptureFixture) -> None:
    grace = Grace(10)
    for _ in range(3):
        learned(grace, upload=20.0)
    [first] = warnings(caplog)
    assert "FORGE_GRACE_SECONDS: 10 s are too short" in first
    assert "takes 27.0 s" in first
    assert "upload 20.0" in first
    assert "terminationGracePeriodSeconds to 34" in first
    grace.written(30.0)
    grace.committed(20.0, 1.0)
    assert len(warnings(caplog)) == 2
    assert "takes 54.0 s" in warnings(caplog)[1]


def test_long_enough_again_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    grace = Grace(10)
    learned(grace, upload=20.0)
    grace.committed(1.0, 1.0)  # the fastest upload counts
    assert "the grace period of 10 s is long enough now" in caplog.text
    grace.committed(1.0, 1.0)
    assert caplog.text.count("long enough") == 1


def test_the_slowest_counts_but_for_uploads() -> None:
    grace = Grace(1000)
    for seconds in (1.0, 5.0, 2.0):
        grace.micro_batch(seconds)
        grace.written(seconds)
        grace.committed(seconds, seconds)
    assert grace.pace == Pace(
        micro_batch_seconds=5, write_seconds=5, upload_seconds=1, commit_seconds=5
    )


def test_the_next_attempt_knows_at_its_start(caplog: pytest.LogCaptureFixture) -> None:
    before = Grace(30)
    learned(before, upload=40.0)
    caplog.clear()
    assert Grace(30, before.pace).needed_seconds == before.needed_seconds
    assert len(warnings(caplog)) == 1
