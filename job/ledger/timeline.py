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


def spans(record: RunRecord) -> list[Span]:
    """One for each attempt, oldest first."""
    return [_span(attempt, record) for attempt in record.attempts]


def held_seconds(record: RunRecord, *, before_attempt: int | None = None) -> float:
    """Seconds that all attempts, or those with a lower number, held their pods."""
    return sum(
        span.seconds
        for span in spans(record)
        if before_attempt is None or span.attempt.number < before_attempt
    )


def _span(attempt: Attempt, record: RunRecord) -> Span:
    if attempt.ended_at is not None:
        return Span(attempt, _between(attempt.started_at, attempt.ended_at), at_least=False)
    if attempt.number == record.attempt:
        return Span(attempt, _between(attempt.started_at, record.updated_at), at_least=False)
    # Killed: it was there until its last heartbeat, which older versions did not note.
    commits = [c.committed_at for c in record.checkpoints if c.attempt == attempt.number]
    last_seen = attempt.last_seen_at or (commits[-1] if commits else attempt.started_at)
    return Span(attempt, _between(attempt.started_at, last_seen), at_least=True)


def _between(start: str, end: str) -> float:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return max(0.0, seconds)
