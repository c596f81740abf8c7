"""The records of all runs below an output, each cut down to one row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from job.errors import AccessDenied, JobError, Unavailable
from job.ledger import RunRecord, gpu_hours, read_record, seconds_since
from job.profiles import PROFILES, resolved
from job.redact import redact
from job.storage import Patience, Storage
from job.storage.keys import checked_key

READERS: Final = 32
"""Records that are read at once: as many as the client keeps connections."""
PATIENCE_SECONDS: Final = 60.0
"""How long an outage is waited out, beyond the client's own tries."""
UNREADABLE: Final = "unreadable"
"""The status of a run whose record is damaged, foreign or not ours to read."""
NOT_STARTED: Final = "not started"
"""The status of a run that was asked for by name and has no record: it waits, or its data were
refused before it began."""


@dataclass(frozen=True)
class Row:
    """What a summary says of one run. None: the record doesn't say, or not yet."""

    run_id: str
    """The folder's name."""
    status: str
    reason: str = ""
    """Why it ended, or what is wrong with it."""
    step: int | None = None
    max_steps: int | None = None
    loss: float | None = None
    eval_loss: float | None = None
    exact: float | None = None
    """Share of held-out turns whose tool calls the adapter got exactly right."""
    gate: str | None = None
    attempts: int | None = None
    gpu_hours: float | None = None
    """Hours that the attempts held their GPUs, one for each process that trains."""
    updated_at: str | None = None
    age_seconds: float | None = None
    silent: bool = False
    """It says that it runs, and has missed three heartbeats."""
    promoted: bool | None = False
    """It is the one that the output's `promoted.json` names; None: that may not be read."""
    settings: dict[str, Any] = field(default_factory=dict)
    """As they took effect: what was left to the profile has the profile's value."""


def scan(
    storage: Storage,
    now: datetime | None = None,
    *,
    prefix: str = "",
    runs: Sequence[str] | None = None,
) -> Iterator[Row | None]:
    """A row for each folder directly below the root whose name begins with `prefix`, in the order
    of their names; None for a folder that holds no run, as those of an odd name do. With `runs`, a
    row for each of these ids and no other, and nothing is listed.

    A record that can't be used is a row that says so. Raises `Unavailable` where storage can't be
    reached, since a summary that leaves runs out would be wrong, and what a listing raises.
    """
    read = partial(_row, storage, now=now or datetime.now(UTC))
    if runs is None:
        folders = storage.folders(names=prefix)
    else:
        folders = iter([f"{run_id}/" for run_id in runs])
    with ThreadPoolExecutor(READERS, thread_name_prefix="fleet") as pool:
        try:
            for row, folder in pool.map(lambda folder: (read(folder), folder), folders):
                absent = None if runs is None else Row(folder.rstrip("/"), NOT_STARTED)
                yield row or absent
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _row(storage: Storage, folder: str, now: datetime) -> Row | None:
    run_id = folder.removesuffix("/")
    if not _can_be_read(run_id):
        return None
    try:
        # Its own: patience remembers since when the outage lasts, and is for one thread.
        found = Patience(PATIENCE_SECONDS)(read_record, storage, folder)
        return None if found is None else row_of(run_id, found[0], now)
    except Unavailable:
        raise
    except AccessDenied as error:
        return Row(run_id, UNREADABLE, f"{error.title}: {_problems_of(error)}")
    except JobError as error:
        return Row(run_id, UNREADABLE, _problems_of(error))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        # It has the record's shape and not its meaning, such as a time that is none.
        return Row(run_id, UNREADABLE, redact(f"{type(error).__name__}: {error}"))


def _can_be_read(name: str) -> bool:
    """S3 has folders without a name, and some called '..': no run writes there."""
    try:
        checked_key(name)
    except ValueError:
        return False
    return True


def effective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings with the profile's values in the place of those that were not given."""
    profile = PROFILES.get(str(settings.get("profile")))
    if profile is None:
        return dict(settings)
    return {**settings, **vars(resolved(profile, settings))}


def row_of(run_id: str, record: RunRecord, now: datetime) -> Row:
    """Raises `ValueError`, or what goes wrong with free-form fields of another shape."""
    age = seconds_since(record.updated_at, now)
    if age is None:
        raise ValueError(f"updated_at is {record.updated_at!r}")
    silent = record.silent_for(now) is not None
    evaluation = record.results.get("evaluation") or {}
    exact = (evaluation.get("adapter") or {}).get("exact") or {}
    return Row(
        run_id,
        record.status,
        "no heartbeat: the pod may be gone" if silent else redact(_reason(record)),
        step=record.progress.step,
        max_steps=record.progress.max_steps or None,
        loss=_finite(record.progress.loss),
        eval_loss=_finite(record.progress.eval_loss),
        exact=_finite(float(exact["rate"])) if "rate" in exact else None,
        gate=record.results.get("gate"),
        attempts=len(record.attempts),
        gpu_hours=gpu_hours(record),
        updated_at=record.updated_at,
        age_seconds=age,
        silent=silent,
        settings=effective(record.settings),
    )


def _finite(value: float | None) -> float | None:
    """NaN has no place in an order, nor in JSON."""
    return value if value is not None and math.isfinite(value) else None


def _problems_of(error: JobError) -> str:
    """Without the place, which the row names already."""
    return redact("; ".join(problem.found for problem in error.problems) or str(error))


def _reason(record: RunRecord) -> str:
    if record.status == "running" or not record.attempts:
        return ""
    return record.current.reason if record.status != "succeeded" else ""
