"""An attempt that trains: it restores, hands checkpoints over, is preempted, publishes, finishes.

In the same order and with the same parts as `job.run` and `job.stages`, training itself left out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from job import ledger, publish
from job.checkpoint import (
    CheckpointUploader,
    Committed,
    Local,
    Rejected,
    Restored,
    collect_orphans,
    drop,
    restore_newest,
)
from job.errors import JobError, Preempted
from job.ledger import FINISHED, Checkpoint, Rejection, RunRecord, read_record
from job.metrics import BuildInfo, Metrics
from job.stages.closing import close_attempt
from job.storage import Patience
from tests.ledger.interleaved import Abandoned, Condition
from tests.ledger.model_observer import Broken, Observer
from tests.ledger.model_process import Process, put
from tests.ledger.model_store import MemoryStore

_FOR_EVER = float("inf")
_BUILD = BuildInfo(version="1", engine="none", profile="none", model="none")


class Training(Process):
    """One process that runs the job."""

    def __init__(self, name: str, store: MemoryStore, observer: Observer, folder: Path) -> None:
        super().__init__(name, store, observer)
        self.step = 0
        self.restored: Restored | None = None
        self.was_finished = False
        self._folder = folder / name
        self._metrics = Metrics(_BUILD)
        self._uploader: CheckpointUploader | None = None
        self._promised: list[str] = []

    @property
    def uploader(self) -> CheckpointUploader:
        assert self._uploader is not None
        return self._uploader

    # -- its stages -------------------------------------------------------------------------

    def start(self) -> None:
        self.begin("main", self._start, self._started)

    def _start(self) -> None:
        if self._already_finished():
            self.was_finished = True
            return
        self.observer.unaware.add(self.name)
        self.claim()
        self.observer.unaware.discard(self.name)
        self._open_uploader()
        self._or_close(self._restore)

    def _started(self) -> None:
        if self.was_finished:
            self.end()
            return
        self._check_owner()
        self._check_restored()

    def _already_finished(self) -> bool:
        found = read_record(self.storage)
        if found is None or found[0].status not in FINISHED or found[0].adapter is None:
            return False
        adapter = found[0].adapter
        try:
            publish.verify(
                self.storage, adapter.key, adapter.manifest_sha256, self._folder / "verify"
            )
        except Rejected:
            return False
        return True

    def _open_uploader(self) -> None:
        uploader = CheckpointUploader(
            self.storage,
            self.ledger,
            self.stop,
            keep=self.observer.keep,
            patience_seconds=_FOR_EVER,
            tries=2,
            on_committed=self._committed,
        )
        assert hasattr(uploader, "_changed")
        assert hasattr(uploader, "_thread")
        uploader._changed = Condition(self.schedule)
        uploader._thread = self.schedule.thread(uploader._run, f"{self.name}-upload")
        self._uploader = uploader.__enter__()

    def _restore(self) -> None:
        def rejected(checkpoint: Checkpoint, reason: str) -> None:
            def note(record: RunRecord) -> None:
                drop(record, [checkpoint])
                record.current.rejected.append(
                    Rejection(key=checkpoint.key, step=checkpoint.step, reason=reason)
                )

            self.ledger.update(note)

        self.restored = restore_newest(
            self.storage,
            list(self.ledger.record.checkpoints),
            self._folder / "restored",
            rejected,
            patiently=self._patiently(),
        )
        step = self.restored.checkpoint.step if self.restored else 0

        def change(record: RunRecord) -> None:
            record.current.from_step = record.current.to_step = record.progress.step = step

        self.ledger.update(change)
        self.step = step

    def leave(self) -> None:
        """Training has come to a boundary, and finds that it was asked to stop."""
        self.begin("main", lambda: self._or_close(self.stop.check), swaps=False)

    def preempt(self) -> None:
        self.stop.request(Preempted("received SIGTERM"))

    def finish(self) -> None:
        self.begin("main", lambda: self._or_close(self._finish), self._finished)

    def _finish(self) -> None:
        while not self.uploader.flush(0.2):
            self.stop.check()
        self.stop.check()
        folder = self._folder / "adapter"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_text(f"weights of {self.name}")
        (folder / "tokenizer.json").write_text("the same for all")
        patiently = self._patiently()
        scratch = self._folder / "verify"
        adapter = patiently(
            publish.publish,
            self.storage,
            self.ledger,
            folder,
            step=self.step,
            promoted=True,
            scratch=scratch,
        )
        report = partial(self.storage.write, "report/report.json", self.name.encode())
        patiently(ledger.put, self.storage, self.ledger, "report/report.json", report)

        def finish(record: RunRecord) -> None:
            record.status, record.adapter = "succeeded", adapter

        patiently(self.ledger.update, finish)
        with suppress(JobError):
            publish.remove_leftovers(self.storage, adapter.key, folder)
            collect_orphans(self.storage, self.ledger)

    def _finished(self) -> None:
        marks = self.observer.record.results.get("marks", {}) if self.observer.record else {}
        if lost := [mark for mark in self._promised if mark not in marks]:
            raise Broken(f"{self.name} has finished, and these changes were not made: {lost}")
        self.end()

    def _or_close(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Abandoned:
            raise
        except BaseException as error:
            end = close_attempt(self.ledger, self.uploader, self._metrics, self.stop, error)
            raise end from error

    def note(self, mark: str) -> None:
        told = partial(self.observer.acknowledged, self.name, mark)
        change = partial(put, mark, self.name)
        self.begin("main", lambda: self._or_close(lambda: self.ledger.update(change)), told)

    def fails(self, error: BaseException) -> bool:
        return True

    def _patiently(self) -> Patience:
        return Patience(_FOR_EVER, pause=lambda _seconds: self.stop.check())

    # -- its checkpoints --------------------------------------------------------------------

    def train(self, steps: int, eval_loss: float | None) -> None:
        """So many steps, and hand over where they lead."""
        self.step += steps
        key = f"checkpoints/{self.step:08d}-{self.ledger.attempt:03d}/"
        files = {name: f"{name} {self.step} of {self.name}".encode() for name in ("a", "b/c")}
        self.observer.handed_over[key] = files
        folder = self._folder / f"checkpoint-{self.step}"
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        self.uploader.submit(Local(folder, self.step, eval_loss))

    def annotate(self, eval_loss: float) -> None:
        self.uploader.annotate(self.step, eval_loss=eval_loss)

    def later(self, mark: str) -> None:
        self._promised.append(mark)
        self.uploader.later(partial(put, mark, self.name))

    def _committed(self, committed: Committed) -> None:
        key = committed.checkpoint.key
        if self.observer.listed.get(key) != committed.checkpoint.manifest_sha256:
            self._wrongs.append(f"{self.name} was told that {key} is committed; it never was")

    def _check_restored(self) -> None:
        """Nobody else has written since it claimed the run, so it had the whole choice. What was
        damaged after it was read is as good as sound."""
        record = self.observer.record
        if record is None or not self.observer.owns(self.name):
            return
        sound = [c for c in record.checkpoints if c.key not in self.observer.damaged]
        newest = max(sound, key=lambda c: c.step).step if sound else 0
        if self.step < newest:
            raise Broken(f"restored step {self.step}, step {newest} was to be had")
        if self.restored is not None:
            self._check_content(self.restored)

    def _check_content(self, restored: Restored) -> None:
        files = self.observer.handed_over[restored.checkpoint.key]
        found = {name: (restored.path / name).read_bytes() for name in files}
        if found != files:
            raise Broken(f"{restored.checkpoint.key} came back as something else")
