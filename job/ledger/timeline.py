"""How long the attempts of a run held their pods, as far as the record knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from job.ledger.record import Attempt, RunRecord


@dataclass(frozen=True)
class Span:
    """The time of one attempt."""

    attempt: Attempt
    seconds: float
    at_least: bool
    """The attempt was killed: it held its pod for longer than can be known."""
    gpus: int
    """That it held all the time."""
    lost_at_least: bool
    """Of its `lost_steps`: the attempt before was killed, and had told of no more."""


def spans(record: RunRecord) -> list[Span]:
    """One for each attempt, oldest first."""
    before = [None, *record.attempts]
    return [_span(*pair, record) for pair in zip(before, record.attempts, strict=False)]


def held_seconds(record: RunRecord, *, before_attempt: int | None = None) -> float:
    """Seconds that all attempts, or those with a lower number, held their pods."""
    return sum(
        span.seconds
        for span in spans(record)
        if before_attempt is None or span.attempt.number < before_attempt
    )


def gpu_hours(record: RunRecord) -> float:
    """Of all attempts, each with the GPUs that it had; 0 for a run on a CPU."""
    return sum(span.seconds * span.gpus for span in spans(record)) / 3600


def _span(before: Attempt | None, attempt: Attempt, record: RunRecord) -> Span:
    end, at_least = _end_of(attempt, record)
    seconds = _between(attempt.started_at, end)
    lost_at_least = attempt.lost_at_least
    if lost_at_least is None:  # older versions did not note it
        lost_at_least = before is not None and before.ended_at is None
    return Span(attempt, seconds, at_least, record.gpus_of(attempt), lost_at_least)


def _end_of(attempt: Attempt, record: RunRecord) -> tuple[str, bool]:
    """And whether it may have been later."""
    if attempt.ended_at is not None:
        return attempt.ended_at, False
    if attempt.number == record.attempt:
        return record.updated_at, False
    # Killed: it was there until its last heartbeat, which older versions did not note.
    commits = [c.committed_at for c in record.checkpoints if c.attempt == attempt.number]
    return attempt.last_seen_at or (commits[-1] if commits else attempt.started_at), True


def _between(start: str, end: str) -> float:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return max(0.0, seconds)
