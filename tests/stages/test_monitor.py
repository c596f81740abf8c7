"""What training says, as the record and the metrics have it."""

from __future__ import annotations

from job.checkpoint import CheckpointUploader, Grace
from job.errors import FingerprintMismatch, Preempted
from job.ledger import Checkpoint, Ledger, Progress, RunRecord, read_record
from job.lifecycle import StopToken
from job.logs import LogContext
from job.metrics import BuildInfo, Metrics
from job.stages.closing import close_attempt
from job.stages.monitor import Monitor
from job.storage import Storage
from job.training import TrainingState


class Attempt:
    """One that may train, and ends as it is told to."""

    def __init__(self, storage: Storage) -> None:
        self.ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
        self.stop = StopToken()
        self.metrics = Metrics(BuildInfo("1", "reference", "fast_dev", "model"))
        self.uploader = CheckpointUploader(
            storage, self.ledger, self.stop, keep=3, patience_seconds=0
        )
        grace, context = Grace(30), LogContext("run-1", interactive=False)
        self.monitor = Monitor(self.metrics, self.ledger, self.uploader, grace, context)

    def begin(self, step: int) -> float:
        self.monitor.began(step=step, max_steps=9, state=TrainingState(), history=[])
        self.monitor.ended()
        found = self.metrics.registry.get_sample_value("forge_resumes_total")
        assert found is not None
        return found

    def end(self, error: BaseException) -> None:
        if isinstance(error, Preempted):
            self.stop.request(error)
        with self.uploader:
            close_attempt(self.ledger, self.uploader, self.metrics, self.stop, error)


def commit(record: RunRecord) -> None:
    found = Checkpoint(step=5, attempt=1, key="checkpoints/5/", manifest_sha256="0", bytes=1)
    record.checkpoints.append(found)


def test_only_attempts_that_trained_on_are_resumes(storage: Storage) -> None:
    first = Attempt(storage)
    assert first.begin(0) == 0
    first.ledger.update(commit)
    first.end(Preempted("SIGTERM"))
    for _ in range(2):
        Attempt(storage).end(FingerprintMismatch("lora.r: was 8, is now 4"))
    last = Attempt(storage)
    assert last.begin(5) == 1
    last.end(Preempted("SIGTERM"))

    found = read_record(storage)
    assert found is not None
    record = found[0]
    assert [attempt.began for attempt in record.attempts] == [True, False, False, True]
    assert record.resumed_at == [5]


def test_an_earlier_release_noted_no_beginning(directory: Storage) -> None:
    first = Attempt(directory)
    first.ledger.update(commit)
    first.ledger.heartbeat(Progress(step=5))
    second = Attempt(directory)
    second.ledger.update(lambda record: setattr(record.current, "began", None))
    third = Attempt(directory)
    assert third.begin(5) == 2
    assert second.ledger.record.resumed_at == [5]
