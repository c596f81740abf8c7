"""A run whose attempts end again and again without a step forward must not go on for ever."""

from __future__ import annotations

from job.errors import NoProgress, Problem
from job.ledger.ledger import Ledger
from job.ledger.record import Attempt, RunRecord

_ASK_FOR_A_CHANGE = (65, 69, 77, 78)
"""Ends that say what somebody has to mend (data, storage, permissions, settings): no livelock."""

_SHOWN = 10


def give_up_without_progress(ledger: Ledger, limit: int) -> None:
    """Raise `NoProgress` if the last `limit` attempts before ours have moved the run nowhere.

    It is noted in the record, and the attempt after this one counts from anew: whoever starts the
    run again wants it to be tried. 0 never gives up.
    """
    fruitless = _fruitless(ledger.record)
    if not limit or len(fruitless) < limit:
        return

    def note(record: RunRecord) -> None:
        record.current.gave_up = True

    ledger.update(note)
    raise NoProgress(
        [
            Problem(
                f"{len(fruitless)} attempts in a row",
                f"ended at step {ledger.record.durable_step}, where they began",
                "look at their ends below and in their pods' logs; more often checkpoints "
                "(FORGE_SAVE_SECONDS) or a longer grace period may help; start it again to try it "
                f"{limit} times more (FORGE_MAX_ATTEMPTS_WITHOUT_PROGRESS)",
            ),
            *(_as_problem(attempt) for attempt in fruitless[:_SHOWN]),
        ]
    )


def _fruitless(record: RunRecord) -> list[Attempt]:
    """Newest first."""
    found = []
    for attempt in reversed(record.attempts[:-1]):
        if attempt.progressed or attempt.gave_up:
            break
        if attempt.exit_code not in _ASK_FOR_A_CHANGE:
            found.append(attempt)
    return found


def _as_problem(attempt: Attempt) -> Problem:
    if attempt.exit_code is None:
        end = "was killed, or could not say how it ended"
    else:
        end = f"exit {attempt.exit_code}: {attempt.reason}"
    where = f"attempt {attempt.number} (began {attempt.started_at} on {attempt.holder.host})"
    return Problem(where, end)
