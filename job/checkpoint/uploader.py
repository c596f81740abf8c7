"""Checkpoints to storage behind the training thread's back, committed one by one.

Training pays for the local write alone. One worker hashes, uploads, commits to the record and
retains, at the lowest priority. What can't be mended asks the run to stop, so that the failure
reappears on the training thread: nothing is swallowed.

Which of several checkpoints goes up is decided in `job.checkpoint.supersede`.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from types import TracebackType

from job.checkpoint.background import step_back
from job.checkpoint.commit import Change, Changes, Committed, Committer, Local
from job.checkpoint.grace import Grace
from job.checkpoint.retain import collect_orphans, delete_files
from job.checkpoint.supersede import Upload, gives_way, is_best
from job.errors import JobError, Unavailable
from job.ledger.ledger import Ledger
from job.ledger.record import RunRecord
from job.lifecycle import StopToken
from job.storage.base import Storage
from job.storage.cancellation import Cancelled
from job.storage.patience import Patience

_log = logging.getLogger(__name__)

_HURRIED_PAUSE_SECONDS = 0.5
"""Between two tries once the grace period runs."""


class CheckpointUploader:
    """Use as a context manager; leaving it doesn't wait (call `flush` for that)."""

    def __init__(
        self,
        storage: Storage,
        ledger: Ledger,
        stop: StopToken,
        *,
        keep: int,
        needs_best: bool = True,
        patience_seconds: float,
        tries: int = 1,
        grace: Grace | None = None,
        on_committed: Callable[[Committed], None] = lambda _committed: None,
        on_failure: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """`storage` is for this uploader alone, as its transfer threads are to run at our
        priority. `needs_best` says that the run ends with its best checkpoint. `tries` is how
        often anything but an outage may fail in a row."""
        self._storage = storage
        self._ledger = ledger
        self._stop = stop
        self._grace = grace or Grace(stop.grace_seconds)
        self._changes = Changes()
        self._committer = Committer(storage, ledger, self._changes, keep, self._grace)
        self._on_committed = on_committed
        self._on_failure = on_failure
        self._patiently = Patience(
            patience_seconds,
            tries=tries,
            on_failure=self._failed,
            pause=self._pause,
            counts_hanging=True,
        )
        self._needs_best = needs_best
        self._waiting: list[Local] = []
        """Oldest first: the best so far, if it waits, and the newest."""
        self._upload: Upload | None = None
        self._working = False
        self._has_committed = False
        self._untidy = True  # an earlier attempt may have left something
        self._dropped_last = False
        self._hurried = False
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
            given_up = [older for older in self._waiting if not self._is_best(older, local)]
            for older in given_up:
                self._give_up(older)
            self._waiting = [o for o in self._waiting if o not in given_up] + [local]
            if self._upload is not None and self._gives_way(self._upload, local):
                self._supersede(self._upload)
            self._changed.notify_all()

    def later(self, change: Change) -> None:
        """Change the record with the next swap; returns at once."""
        with self._changed:
            self._changes.add(change)
            self._changed.notify_all()

    def annotate(self, step: int, **values: float) -> None:
        """Set fields of that step's checkpoint, wherever it is by now; returns at once. Nothing
        happens where there is none."""

        def change(record: RunRecord) -> None:
            for checkpoint in record.checkpoints:
                if checkpoint.step == step:
                    for name, value in values.items():
                        setattr(checkpoint, name, value)

        with self._changed:
            if self._is_known(step):
                self._changes.add(change, step)
                self._changed.notify_all()

    def _is_known(self, step: int) -> bool:
        listed = [checkpoint.step for checkpoint in self._ledger.record.checkpoints]
        return step in [*listed, *(local.step for local in self._on_its_way())]

    def _on_its_way(self) -> list[Local]:
        return [*self._waiting, *([self._upload.local] if self._upload else [])]

    def _is_best(self, older: Local, newer: Local) -> bool:
        """Whether `older` is needed although `newer` is there: none that will be durable has a
        lower validation loss."""
        on_its_way = [*self._on_its_way(), newer]
        others = [local.eval_loss for local in on_its_way if local is not older]
        others += [checkpoint.eval_loss for checkpoint in self._ledger.record.checkpoints]
        return self._needs_best and is_best(older, others)

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything handed over is durable, and every change made. False when time ran
        out first. A failure of the worker is the stop token's cause; `StopToken.check` raises it.
        """
        with self._changed:
            self._hurried = self._hurried or self._stop.requested
            if self._hurried and self._upload and self._upload.superseded.is_set():
                self._upload.cancellation.cancel()  # its turn is over: the newest waits
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not (self._waiting or self._upload or self._changes), timeout_seconds
            )

    def settle(self, timeout_seconds: float | None = None) -> bool:
        """As `flush`, and also for old checkpoints and orphans to be gone."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not (self._has_work() or self._working), timeout_seconds
            )

    # -- the worker -------------------------------------------------------------------------

    def _run(self) -> None:
        step_back()
        while self._next():
            try:
                self._work()
            except Cancelled:
                self._give_up_upload()
            except BaseException as error:  # noqa: BLE001
                # Whatever it is, it must reappear on the training thread.
                self._changes.clear()
                self._on_failure(type(error).__name__)
                self._stop.request(error)
            finally:
                self._done()

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_work())
            if self._closed and not self._waiting and not self._changes:
                return False
            local = self._waiting.pop(0) if self._waiting else None
            self._upload = Upload(local) if local else None
            self._working = True
            return True

    def _has_work(self) -> bool:
        # Orphans wait for a checkpoint of our own: until then there are more urgent things to do.
        tidies = self._untidy and self._has_committed and not self._stop.requested
        return bool(self._waiting or self._changes) or tidies

    def _done(self) -> None:
        with self._changed:
            self._upload = None
            self._working = False
            self._changed.notify_all()

    def _work(self) -> None:
        if self._upload is not None:
            self._commit(self._upload)
        elif self._changes:
            self._patiently(self._changes.swap, self._ledger)
        else:
            self._tidy()

    def _commit(self, upload: Upload) -> None:
        with self._patiently.as_one():
            committed = self._committer.commit(upload.local, upload.cancellation, self._patiently)
        checkpoint = committed.checkpoint
        self._grace.committed(committed.upload_seconds, committed.commit_seconds)
        self._on_committed(committed)
        _log.info(
            "checkpoint of step %d is durable (%.1f MB in %.2f s)",
            checkpoint.step,
            checkpoint.bytes / 1e6,
            committed.upload_seconds + committed.commit_seconds,
        )
        with self._changed:
            self._upload = None  # durable: who waits for that needn't wait for the rest
            self._dropped_last, self._has_committed = False, True
            self._changed.notify_all()
        shutil.rmtree(upload.local.folder, ignore_errors=True)
        self._patiently(delete_files, self._storage, committed.dropped)

    def _tidy(self) -> None:
        self._untidy = False
        try:
            collect_orphans(self._storage, self._ledger)
        except JobError as error:
            _log.warning("what earlier uploads have left stays in storage: %s", error)

    def _give_up_upload(self) -> None:
        with self._changed:
            upload, self._upload = self._upload, None
            self._dropped_last = self._untidy = True
        if upload is not None:
            self._give_up(upload.local)

    def _give_up(self, local: Local) -> None:
        _log.info("checkpoint of step %d is superseded", local.step)
        self._changes.forget(local.step)
        shutil.rmtree(local.folder, ignore_errors=True)

    def _gives_way(self, upload: Upload, newer: Local) -> bool:
        if self._is_best(upload.local, newer):
            return False
        failing, dropped_last = self._patiently.tried, self._dropped_last
        return gives_way(
            upload, self._stop, self._grace, failing=failing, dropped_last=dropped_last
        )

    def _supersede(self, upload: Upload) -> None:
        """While storage fails only between two tries: cut off by each newer state, no try would
        ever be told from one that goes well, and no patience end."""
        upload.superseded.set()
        if self._stop.requested or not self._patiently.tried:
            upload.cancellation.cancel()

    # -- trouble ----------------------------------------------------------------------------

    def _failed(self, error: JobError) -> None:
        self._on_failure("unavailable" if isinstance(error, Unavailable) else type(error).__name__)
        _log.warning("checkpoint upload failed and is retried while training goes on: %s", error)

    def _pause(self, seconds: float) -> None:
        """Raises `Cancelled` when the upload that failed is not wanted any more."""
        with self._changed:
            upload = self._upload
            self._changed.wait_for(
                lambda: self._hurried or (upload and upload.cancellation.requested.is_set()),
                seconds,
            )
            hurried = self._hurried
        if upload is not None and upload.superseded.is_set():
            raise Cancelled
        if hurried:
            time.sleep(min(seconds, _HURRIED_PAUSE_SECONDS))
