"""Checkpoints to storage behind the training thread's back, committed one by one.

Training pays for the local write alone. One worker hashes, uploads, commits to the record and
retains; a waiting checkpoint is replaced when a newer one is handed over. An outage is waited
out with random exponential back-off; what can't be mended asks the run to stop, so that the
failure reappears on the training thread. Nothing is swallowed.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from job.checkpoint.retain import delete_files, unlist, unlist_superfluous
from job.checkpoint.transfer import StoredFolder, upload_folder
from job.errors import Unavailable
from job.ledger.ledger import Ledger
from job.ledger.record import Checkpoint, RunRecord
from job.lifecycle import StopToken
from job.storage.base import Storage

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Local:
    """A checkpoint folder on the work volume, complete and no longer written to."""

    folder: Path
    step: int
    eval_loss: float | None


@dataclass(frozen=True)
class Committed:
    """What a commit took, for metrics and logs."""

    checkpoint: Checkpoint
    upload_seconds: float
    commit_seconds: float


class CheckpointUploader:
    """Use as a context manager; leaving it doesn't wait (call `flush` for that)."""

    def __init__(
        self,
        storage: Storage,
        ledger: Ledger,
        stop: StopToken,
        *,
        keep: int,
        patience_seconds: float,
        on_committed: Callable[[Committed], None] = lambda _committed: None,
        on_failure: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._storage = storage
        self._ledger = ledger
        self._stop = stop
        self._keep = keep
        self._patience_seconds = patience_seconds
        self._on_committed = on_committed
        self._on_failure = on_failure
        self._waiting: Local | None = None
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="checkpoint-upload", daemon=True)

    def __enter__(self) -> CheckpointUploader:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def submit(self, local: Local) -> None:
        """Hand a checkpoint over; returns at once. The folder belongs to the uploader now."""
        with self._changed:
            if self._waiting is not None:
                _log.info("checkpoint of step %d is superseded", self._waiting.step)
                shutil.rmtree(self._waiting.folder, ignore_errors=True)
            self._waiting = local
            self._changed.notify_all()

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything handed over is committed. False when time ran out first.

        A failure of the worker is the stop token's cause; `StopToken.check` raises it.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._waiting is None and not self._busy, timeout_seconds
            )

    def _run(self) -> None:
        while (local := self._next()) is not None:
            try:
                self._commit(local)
            except BaseException as error:  # noqa: BLE001
                # Whatever it is, it must reappear on the training thread.
                self._on_failure(type(error).__name__)
                self._stop.request(error)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> Local | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            local, self._waiting = self._waiting, None
            self._busy = local is not None
            return local

    def _commit(self, local: Local) -> None:
        """Each step is tried again by itself: an outage in one doesn't repeat those before it."""
        self._ledger.check_not_fenced()
        started = time.monotonic()
        stored = self._patiently(self._upload, local)
        uploaded = time.monotonic()
        checkpoint = Checkpoint(
            step=local.step,
            attempt=self._ledger.attempt,
            key=stored.key,
            manifest_sha256=stored.manifest_sha256,
            bytes=stored.bytes,
            eval_loss=local.eval_loss,
        )
        self._patiently(self._ledger.update, lambda record: _list(record, checkpoint))
        committed = Committed(checkpoint, uploaded - started, time.monotonic() - uploaded)
        self._on_committed(committed)
        _log.info(
            "checkpoint of step %d is durable (%.1f MB in %.2f s)",
            checkpoint.step,
            checkpoint.bytes / 1e6,
            committed.upload_seconds + committed.commit_seconds,
        )
        shutil.rmtree(local.folder, ignore_errors=True)
        gone = self._patiently(unlist_superfluous, self._ledger, self._keep)
        self._patiently(delete_files, self._storage, gone)

    def _upload(self, local: Local) -> StoredFolder:
        key = f"checkpoints/{local.step:08d}-{self._ledger.attempt:03d}/"
        if listed := [c for c in self._ledger.record.checkpoints if c.key == key]:
            unlist(self._ledger, listed)  # its files change: nobody may rely on them meanwhile
        return upload_folder(self._storage, key, local.folder, local.step)

    def _patiently(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Try again while storage is unreachable, up to the patience."""
        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_after_delay(self._patience_seconds),
            before_sleep=self._failed,
            reraise=True,
        )
        return retrying(step, *args, **kwargs)

    def _failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._on_failure("unavailable")
        _log.warning("checkpoint upload failed, is tried again while training goes on: %s", error)


def _list(record: RunRecord, checkpoint: Checkpoint) -> None:
    others = [c for c in record.checkpoints if c.key != checkpoint.key]
    record.checkpoints = [*others, checkpoint]
