"""The run's record under compare-and-swap: who owns the run, and what is true of it.

Every change reads nothing and writes once: the new `run.json` goes out on the condition that the
object still has the ETag of our last write. A failed condition means that somebody wrote since:
our own write whose answer was lost (adopted), or a newer attempt (we are fenced, for good).
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from job.errors import Fenced, JobError, Problem
from job.ledger.record import FINISHED, TRAINED, Attempt, Holder, Progress, RunRecord, Status, now
from job.storage.base import Conflict, NotFound, Storage, Unanswered

RECORD_KEY = "run.json"
_SWAP_TRIES = 8


def read_record(storage: Storage, folder: str = "") -> tuple[RunRecord, str] | None:
    """The record and its ETag, or None for a run that never began.

    `folder` ('' or ending in '/') is where the run lies, if that isn't the storage's root.
    Raises `JobError` for a record that can't be read, with what to do about it.
    """
    try:
        data, etag = storage.read(folder + RECORD_KEY)
    except NotFound:
        return None
    return _parse(data, f"{storage.uri}/{folder}{RECORD_KEY}"), etag


def new_holder(version: str) -> Holder:
    return Holder(
        token=uuid.uuid4().hex, host=socket.gethostname(), pid=os.getpid(), version=version
    )


class Ledger:
    """Our attempt's hold on the run. Thread-safe."""

    def __init__(self, storage: Storage, record: RunRecord, etag: str, holder: Holder) -> None:
        self._storage = storage
        self._record = record
        self._etag = etag
        self._holder = holder
        self._newer_attempt: int | None = None
        self._attempt = record.attempt
        self._lock = threading.RLock()

    @classmethod
    def claim(
        cls,
        storage: Storage,
        run_id: str,
        *,
        version: str,
        conditional_writes: bool,
        reopens: bool = True,
        processes: int | None = None,
    ) -> Ledger:
        """Open a new attempt at the run, of so many processes, which fences all older ones.

        Raises `JobError` when others keep claiming it at the same moment, and `Fenced` if one of
        them has finished the run and a finished one isn't to be opened again (`reopens`).
        """
        holder = new_holder(version)
        for _ in range(_SWAP_TRIES):
            found = read_record(storage)
            if found is not None and _is_held_by(found[0], holder):
                return cls(storage, *found, holder)  # only the answer to our write was lost
            record = found[0] if found else RunRecord(run_id=run_id)
            if record.status in FINISHED and not reopens:
                raise Fenced(f"attempt {record.attempt} has just finished {storage.uri}")
            _open_attempt(record, holder, conditional_writes, processes)
            data = serialize(record)
            try:
                if found is None:
                    etag = storage.write(RECORD_KEY, data, if_none_match=conditional_writes)
                else:
                    expected = found[1] if conditional_writes else None
                    etag = storage.write(RECORD_KEY, data, if_match=expected)
            except Conflict:
                continue
            return cls(storage, record, etag, holder)
        raise JobError(
            f"{storage.uri}: other attempts keep claiming this run; is it started twice?"
        )

    @property
    def record(self) -> RunRecord:
        """The record as of our last write. Not to be changed by the caller.

        Never waits: the lock is held as long as a swap takes, which in an outage is long.
        """
        return self._record

    @property
    def attempt(self) -> int:
        """Ours, also when a newer one owns the run by now."""
        return self._attempt

    def check_not_fenced(self) -> None:
        """Raise `Fenced` if it is already known that a newer attempt owns the run. No request."""
        if self._newer_attempt is not None:
            raise Fenced(f"attempt {self._newer_attempt} now owns {self._storage.uri}")

    def update(self, change: Callable[[RunRecord], None]) -> RunRecord:
        """Apply `change` to a copy of the record and swap it in.

        `change` may be called several times. Raises `Fenced` when a newer attempt owns the run,
        now and at every later call; `JobError` when the record is gone or was made unreadable.
        The storage's errors pass through and change nothing.
        """
        with self._lock:
            for _ in range(_SWAP_TRIES):
                self._check_owner_without_conditions()
                self.check_not_fenced()
                copy = self._record.model_copy(deep=True)
                change(copy)
                copy.updated_at = now()
                data = serialize(copy)
                try:
                    expected = self._etag if self._record.conditional_writes else None
                    self._etag = self._storage.write(RECORD_KEY, data, if_match=expected)
                except (Conflict, Unanswered) as error:
                    # What was lost may be the answer alone. Not to look leaves swaps that fail for
                    # ever where every other answer is lost: each meets the one before it.
                    if self._reread() == data:
                        return self._record
                    if isinstance(error, Unanswered):
                        raise
                    continue
                self._record = copy
                return copy
            raise JobError(f"{self._storage.uri}/{RECORD_KEY}: the swap keeps failing")

    def confirm(self) -> RunRecord:
        """Make sure that we own the run, with a swap that changes nothing. Raises as `update`."""
        return self.update(lambda _record: None)

    def heartbeat(self, progress: Progress) -> None:
        """A finished run keeps the progress that it ended with."""

        def change(record: RunRecord) -> None:
            if record.status not in FINISHED:
                record.progress = progress

        self.update(change)

    def close(
        self, status: Status, exit_code: int, reason: str, progress: Progress | None = None
    ) -> None:
        """Say how this attempt ended, if that isn't said: the first word is the true one, also
        where we learn of it only now, as its answer was lost."""

        def change(record: RunRecord) -> None:
            if record.current.ended_at is not None:
                return
            record.status = status
            if progress is not None:
                record.progress = progress
            attempt = record.current
            attempt.ended_at = now()
            attempt.exit_code = exit_code
            attempt.reason = reason
            attempt.to_step = max(attempt.from_step, record.durable_step)

        self.update(change)

    def set_fields(self, **values: Any) -> None:
        """Set top-level fields of the record."""

        def change(record: RunRecord) -> None:
            for name, value in values.items():
                setattr(record, name, value)

        self.update(change)

    def _reread(self) -> bytes:
        """Take what is stored now. Raises `Fenced` if it isn't ours."""
        try:
            data, etag = self._storage.read(RECORD_KEY)
        except NotFound as error:
            raise JobError(
                Problem(f"{self._storage.uri}/{RECORD_KEY}", "was deleted while the run goes on")
            ) from error
        record = _parse(data, f"{self._storage.uri}/{RECORD_KEY}")
        if _is_held_by(record, self._holder):
            self._record, self._etag = record, etag
        else:
            self._newer_attempt = record.attempt
            self.check_not_fenced()
        return data

    def _check_owner_without_conditions(self) -> None:
        # The store ignores conditions: reading before each write narrows the window in which
        # two attempts can overwrite each other, it can't close it. Said loudly at start.
        if not self._record.conditional_writes and self._newer_attempt is None:
            self._reread()


def _parse(data: bytes, where: str) -> RunRecord:
    try:
        return RunRecord.model_validate_json(data)
    except ValidationError as error:
        raise JobError(
            Problem(
                where,
                f"is not a record of a run: {error.errors()[0]['msg']}",
                "it was written by another program or edited; restore it or use a new FORGE_RUN_ID",
            )
        ) from error


def _is_held_by(record: RunRecord, holder: Holder) -> bool:
    return record.holder is not None and record.holder.token == holder.token


def _open_attempt(
    record: RunRecord, holder: Holder, conditional_writes: bool, processes: int | None
) -> None:
    durable = record.durable_step
    lost = max(0, record.progress.step - durable)
    killed = bool(record.attempts) and record.current.ended_at is None
    if killed:
        # It was killed without a chance to say how far it got, and when.
        record.current.last_seen_at = record.updated_at
        record.current.to_step = max(record.current.from_step, durable)
    record.attempt += 1
    record.holder = holder
    record.status = "running"
    record.conditional_writes = conditional_writes
    record.updated_at = now()
    before = record.progress
    record.progress = Progress(
        step=durable,
        max_steps=before.max_steps,
        eval_loss=before.eval_loss,
        losses=[(step, loss) for step, loss in before.losses if step <= durable],
    )
    record.attempts.append(
        Attempt(
            number=record.attempt,
            holder=holder,
            processes=processes,
            from_step=durable,
            to_step=durable,
            lost_steps=lost,
            lost_at_least=killed and before.phase not in TRAINED,
            began=False,
        )
    )


def serialize(record: RunRecord) -> bytes:
    """What `run.json` holds of it."""
    return record.model_dump_json(indent=1).encode()
