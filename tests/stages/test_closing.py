"""How an attempt takes its leave: what it saves, what it writes down, what it never touches."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.checkpoint import CheckpointUploader, Local
from job.errors import (
    AccessDenied,
    DataError,
    Diverged,
    Fenced,
    GateFailed,
    Preempted,
    Stopped,
    Unavailable,
)
from job.ledger import RECORD_KEY, Ledger, RunRecord, read_record
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.ranks import PeerLost
from job.stages.closing import close_attempt, last_words
from job.storage import Storage, open_storage
from tests.ledger.wrapped import Failing, Hanging, Wrapped

FOR_EVER = 3600.0
"""Seconds; a test that waits for them fails by its timeout."""


class Attempt:
    """An attempt at work: a step that was trained, and whatever is being uploaded."""

    def __init__(self, storage: Storage, folder: Path, grace_seconds: float = FOR_EVER) -> None:
        self.storage = Wrapped(storage)
        self.folder = folder
        self.ledger = Ledger.claim(self.storage, "run-1", version="1", conditional_writes=True)
        self.stop = StopToken(grace_seconds)
        self.metrics = Metrics(BuildInfo("1", "reference", "fast_dev", "model"))
        self.uploader = Watched(
            self.storage, self.ledger, self.stop, keep=3, patience_seconds=FOR_EVER
        )

    def train(self, step: int) -> None:
        self.metrics.step_done(step, 0.1, tokens=1, supervised_tokens=1, samples=1)

    def save(self, step: int) -> None:
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text("s")
        self.uploader.submit(Local(folder, step, None))

    def uploads_only_while_waited_for(self) -> None:
        def before(verb: str, _key: str) -> None:
            if verb == "upload":
                assert self.uploader.waited_for.wait(60)

        self.storage.before = before

    def close(self, error: BaseException) -> BaseException:
        if isinstance(error, Stopped):
            self.stop.request(error)
        return close_attempt(self.ledger, self.uploader, self.metrics, self.stop, error)

    def say_last(self, cause: BaseException) -> None:
        last_words(self.ledger, self.uploader, self.metrics, self.stop)(cause)

    @property
    def record(self) -> RunRecord:
        found = read_record(self.storage.inner)
        assert found is not None
        return found[0]


class Watched(CheckpointUploader):
    """Tells when somebody waits for it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waited_for = threading.Event()

    def flush(self, timeout_seconds: float | None = None) -> bool:
        self.waited_for.set()
        return super().flush(timeout_seconds)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "run-1"))


@pytest.fixture
def attempt(storage: Storage, tmp_path: Path) -> Iterator[Attempt]:
    attempt = Attempt(storage, tmp_path / "work")
    with attempt.uploader:
        yield attempt


# -- failed, with a checkpoint on its way ----------------------------------------------------------


def test_what_is_on_its_way_at_a_failure_is_not_trained_again(attempt: Attempt) -> None:
    attempt.uploads_only_while_waited_for()
    attempt.train(57)
    attempt.save(57)
    attempt.close(RuntimeError("CUDA error: an illegal memory access"))
    record = attempt.record
    assert [checkpoint.step for checkpoint in record.checkpoints] == [57]
    assert (record.status, record.current.exit_code, record.current.to_step) == ("failed", 70, 57)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), Unavailable("storage is gone")])
def test_it_is_not_waited_for_in_vain(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    release = threading.Event()

    def hangs(verb: str, _key: str) -> None:
        if verb == "upload":
            release.wait(60)

    attempt.storage.before = hangs
    attempt.save(57)
    if isinstance(error, RuntimeError):  # whoever wants the pod meanwhile gets it
        monkeypatch.setattr(StopToken, "signalled", property(lambda _token: True))
    attempt.close(error)
    assert attempt.record.checkpoints == []
    assert attempt.record.status == "failed"
    release.set()


# -- preempted ------------------------------------------------------------------------------------


def test_preempted_waits_for_its_last_checkpoint(
    attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    attempt.uploads_only_while_waited_for()
    attempt.train(57)
    attempt.save(57)
    with caplog.at_level(logging.INFO):
        attempt.close(Preempted("received SIGTERM"))
    record = attempt.record
    assert [checkpoint.step for checkpoint in record.checkpoints] == [57]
    assert (record.status, record.current.exit_code) == ("preempted", 75)
    assert (record.current.reason, record.current.to_step) == ("received SIGTERM", 57)
    assert (record.progress.phase, record.progress.step) == ("preempted", 57)
    assert record.current.ended_at is not None
    assert "everything up to step 57 is durable" in caplog.messages


def test_a_grace_period_that_is_too_short_loses_steps_and_says_so(
    storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = Attempt(storage, tmp_path / "work", grace_seconds=1)  # all of it for the record
    hanging = Hanging("upload")
    with attempt.uploader:
        attempt.save(50)
        assert attempt.uploader.flush()
        attempt.storage.before = hanging
        attempt.train(57)
        attempt.save(57)
        attempt.close(Preempted("received SIGTERM"))
        record = attempt.record
        hanging.go_on.set()
        assert attempt.uploader.flush()
    assert (record.status, record.current.exit_code, record.current.to_step) == (
        "preempted",
        75,
        50,
    )
    assert (
        "steps 51 to 57 are lost: the grace period is too short for its upload" in caplog.messages
    )


def test_an_upload_that_fails_at_the_end_is_said_to_have_failed(
    attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    attempt.storage.before = Failing("upload", "", AccessDenied("no"))
    attempt.train(57)
    attempt.save(57)
    attempt.close(Preempted("received SIGTERM"))
    assert attempt.record.status == "preempted"
    assert "steps 1 to 57 are lost: its upload failed" in caplog.messages


# -- others own it, or have said it ---------------------------------------------------------------


def test_fenced_writes_nothing(attempt: Attempt) -> None:
    before = attempt.storage.read(RECORD_KEY)
    attempt.storage.calls.clear()
    attempt.close(Fenced("attempt 2 now owns it"))
    assert attempt.storage.calls == []
    assert attempt.storage.read(RECORD_KEY) == before


def test_fenced_without_knowing_it_writes_nothing_either(
    attempt: Attempt, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    before = storage.read(RECORD_KEY)
    end = attempt.close(Diverged("loss is nan"))
    assert storage.read(RECORD_KEY) == before
    assert isinstance(end, Fenced), "whatever went wrong, its successor is at work"
    assert "this attempt was replaced; it was about to end with: loss is nan" in caplog.text


def test_a_failed_gate_was_recorded_with_its_candidate(attempt: Attempt) -> None:
    attempt.ledger.close("gate_failed", 80, "exactly right 40.0%")
    before = attempt.storage.read(RECORD_KEY)
    attempt.close(GateFailed("exactly right 40.0%"))
    assert attempt.storage.read(RECORD_KEY) == before
    assert (attempt.metrics.state.phase, attempt.metrics.state.exit_code) == ("finished", 80)


# -- failed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (DataError("a.jsonl:3: is empty"), 65, "a.jsonl:3: is empty"),
        (Unavailable("the store is down"), 69, "the store is down"),
        (Diverged("loss is nan"), 81, "loss is nan"),
        (ZeroDivisionError("division by zero"), 70, "division by zero"),
        (RuntimeError(), 70, "RuntimeError"),
        (MemoryError(), 70, "MemoryError"),
    ],
)
def test_a_failure_is_recorded_with_code_and_reason(
    attempt: Attempt, error: BaseException, code: int, reason: str
) -> None:
    attempt.train(7)
    attempt.close(error)
    record = attempt.record
    assert (record.status, record.progress.phase, record.progress.step) == ("failed", "failed", 7)
    assert (record.current.exit_code, record.current.reason) == (code, reason)


def test_the_reason_holds_no_secret(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    attempt.close(RuntimeError("GET http://me:hunter2@host with correct-horse-battery failed"))
    assert attempt.record.current.reason == "GET http://***@host with *** failed"


@pytest.mark.parametrize(
    "trouble", [Unavailable("down"), AccessDenied("no"), RuntimeError("a bug"), OSError(5, "EIO")]
)
def test_trouble_with_the_record_does_not_hide_the_failure(
    attempt: Attempt, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    attempt.storage.before = Failing("write", RECORD_KEY, trouble)
    attempt.close(Diverged("loss is nan"))
    assert attempt.record.status == "running"
    assert "the end of this attempt could not be recorded" in caplog.text


def test_a_record_that_is_gone_does_not_hide_the_failure(
    attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    attempt.storage.delete([RECORD_KEY])
    attempt.close(Diverged("loss is nan"))
    assert "could not be recorded" in caplog.text
    assert "was deleted while the run goes on" in caplog.text


def test_a_finished_run_stays_finished_whatever_comes_after(attempt: Attempt) -> None:
    """A promotion that is refused is not the end of the adapter."""
    attempt.ledger.update(lambda record: setattr(record, "status", "succeeded"))
    refused = AccessDenied("no right to promoted.json")
    assert attempt.close(refused) is refused
    assert attempt.record.status == "succeeded"
    assert attempt.record.current.exit_code is None


# -- by another thread than the main one ----------------------------------------------------------


def test_last_words_leave_a_finished_run_finished(attempt: Attempt) -> None:
    """A signal after the final swap, and a main thread that takes too long to end."""
    attempt.ledger.close("succeeded", 0, "finished")
    attempt.say_last(Preempted("received SIGTERM"))
    assert (attempt.record.status, attempt.record.current.exit_code) == ("succeeded", 0)


def test_last_words_say_why_an_attempt_ended(attempt: Attempt) -> None:
    attempt.stop.preempt(signal.SIGTERM)
    attempt.say_last(Preempted("received SIGTERM"))
    assert attempt.record.status == "preempted"
    assert attempt.record.current.reason == "received SIGTERM, and could not end in time"


def test_last_words_of_a_lost_rank_are_a_failure_and_wait_for_its_checkpoint(
    attempt: Attempt,
) -> None:
    """Nobody wants the pod: there is time."""
    attempt.uploads_only_while_waited_for()
    attempt.train(57)
    attempt.save(57)
    attempt.say_last(PeerLost("no sign of rank 1 for 120 s"))
    record = attempt.record
    assert (record.status, record.current.exit_code) == ("failed", 70)
    assert record.current.reason == "no sign of rank 1 for 120 s"
    assert record.current.to_step == record.durable_step == 57


def test_last_words_are_not_those_of_an_attempt_that_was_replaced(
    attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    Ledger.claim(attempt.storage.inner, "run-1", version="1", conditional_writes=True)
    before = attempt.record
    attempt.say_last(PeerLost("no sign of rank 1 for 120 s"))
    attempt.say_last(Fenced("attempt 2 now owns it"))
    assert attempt.record == before
    assert "this attempt was replaced" in caplog.text
