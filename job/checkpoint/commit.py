"""One checkpoint from the work volume to the run's record: files, manifest, then one swap."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.checkpoint.grace import Grace
from job.checkpoint.retain import drop, key_of, superfluous, unlist
from job.checkpoint.transfer import StoredFolder, upload_folder
from job.ledger.ledger import Ledger
from job.ledger.record import Checkpoint, RunRecord
from job.storage.base import Storage
from job.storage.cancellation import Cancellation
from job.storage.patience import Patience

Change = Callable[[RunRecord], None]
"""A change of the record. Making it twice does what making it once does."""


@dataclass(frozen=True)
class _Note:
    change: Change
    step: int
    """The change is of this step's checkpoint; 0: of no checkpoint."""


class Changes:
    """Changes that wait for the next swap: each stays until a swap with it has succeeded.

    One that is about a checkpoint waits until that, or a newer one, is listed.
    """

    def __init__(self) -> None:
        self._waiting: list[_Note] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, change: Change, step: int = 0) -> None:
        with self._lock:
            self._waiting.append(_Note(change, step))

    def forget(self, step: int) -> None:
        """Its checkpoint was given up."""
        with self._lock:
            self._waiting = [note for note in self._waiting if note.step != step]

    def clear(self) -> None:
        with self._lock:
            self._waiting = []

    def swap(self, ledger: Ledger, first: Change = lambda _record: None) -> None:
        """Make them, after `first`, in one swap."""
        made: list[_Note] = []

        def change(record: RunRecord) -> None:
            first(record)
            made[:] = [note for note in list(self._waiting) if note.step <= record.durable_step]
            for note in made:
                note.change(record)

        ledger.update(change)
        with self._lock:
            self._waiting = [note for note in self._waiting if note not in made]


@dataclass(frozen=True)
class Local:
    """A checkpoint folder on the work volume, complete and no longer written to."""

    folder: Path
    step: int
    eval_loss: float | None = None
    next_loss: float | None = None
    """Of the micro-batch that follows, where it was trained already."""


@dataclass(frozen=True)
class Committed:
    """What a commit took, for metrics and logs."""

    checkpoint: Checkpoint
    upload_seconds: float
    commit_seconds: float
    dropped: list[Checkpoint]
    """What left the record in the same swap; the files are still there."""


@dataclass(frozen=True)
class Committer:
    """Makes checkpoints durable, through outages."""

    storage: Storage
    ledger: Ledger
    changes: Changes
    """Made in the same swap as what is committed."""
    keep: int
    grace: Grace

    def commit(self, local: Local, cancellation: Cancellation, patiently: Patience) -> Committed:
        """Each part is tried again by itself: an outage in one doesn't repeat those before it.

        Raises `Cancelled` until the upload has ended.
        """
        self.ledger.check_not_fenced()
        started = time.monotonic()
        stored = patiently(self._upload, local, cancellation)
        uploaded = time.monotonic()
        checkpoint, dropped = patiently(self._list, local, stored)
        now = time.monotonic()
        return Committed(checkpoint, uploaded - started, now - uploaded, dropped)

    def _upload(self, local: Local, cancellation: Cancellation) -> StoredFolder:
        key = key_of(local.step, self.ledger.attempt)
        if listed := [c for c in self.ledger.record.checkpoints if c.key == key]:
            unlist(self.ledger, listed)  # its files change: nobody may rely on them meanwhile
        return upload_folder(self.storage, key, local.folder, local.step, cancellation)

    def _list(self, local: Local, stored: StoredFolder) -> tuple[Checkpoint, list[Checkpoint]]:
        checkpoint = Checkpoint(
            step=local.step,
            attempt=self.ledger.attempt,
            key=stored.key,
            manifest_sha256=stored.manifest_sha256,
            bytes=stored.bytes,
            eval_loss=local.eval_loss,
            next_loss=local.next_loss,
        )
        dropped: list[Checkpoint] = []

        def list_it(record: RunRecord) -> None:
            others = [c for c in record.checkpoints if c.key != checkpoint.key]
            record.checkpoints = [*others, checkpoint]
            record.pace = self.grace.pace
            dropped[:] = superfluous(record.checkpoints, self.keep)
            drop(record, dropped)

        self.changes.swap(self.ledger, list_it)
        return checkpoint, dropped
