"""The report of a failed run: when it is written, and that it never stands in the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from job.errors import DataError, Diverged, Fenced, Preempted
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.stages import report as reporting
from job.stages.report import report_failure
from job.storage import Storage, open_storage
from tests.ledger.wrapped import Wrapped

HISTORY = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}]


class Stuck(Wrapped):
    """A store that does not answer when the data's report is read."""

    def __init__(self, inner: Storage) -> None:
        super().__init__(inner)
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.reader = threading.current_thread()

    def read(self, key: str) -> tuple[bytes, str]:
        if key == "dataset/report.json":
            self.reader = threading.current_thread()
            self.asked.set()
            self.answers.wait()
        return super().read(key)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "run-1"))
    storage.write("dataset/report.json", b'{"rows": {"train": 80}}')
    return storage


@pytest.fixture
def stuck(storage: Storage) -> Iterator[Stuck]:
    stuck = Stuck(storage)
    yield stuck
    stuck.answers.set()
    stuck.reader.join()


def a_run(storage: Storage, history: Any = HISTORY) -> Any:
    """What `report_failure` takes of a run."""
    return SimpleNamespace(
        storage=storage,
        ledger=Ledger.claim(storage, "run-1", version="1", conditional_writes=True),
        stop=StopToken(),
        monitor=SimpleNamespace(history=history),
        settings=SimpleNamespace(gpu_hour_price=None),
    )


def written(storage: Storage) -> set[str]:
    return {info.key for info in storage.list("report/")}


def test_a_diverged_run_has_a_report(storage: Storage) -> None:
    report_failure(a_run(storage), Diverged("step 2: loss is nan"))
    assert written(storage) == {
        "report/metrics.jsonl",
        "report/report.html",
        "report/report.json",
    }


@pytest.mark.parametrize("error", [Preempted("SIGTERM"), Fenced("attempt 2"), DataError("a row")])
def test_other_ends_have_none(storage: Storage, error: BaseException) -> None:
    report_failure(a_run(storage), error)
    assert written(storage) == set()


def test_nothing_trained_nothing_reported(storage: Storage) -> None:
    report_failure(a_run(storage, history=[]), Diverged("step 1"))
    assert written(storage) == set()


def test_an_attempt_that_was_replaced_writes_nothing(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    run = a_run(storage)
    Ledger.claim(storage, "run-1", version="1", conditional_writes=True)  # by a newer one
    report_failure(run, Diverged("step 2"))
    assert written(storage) == set()
    assert "no report: attempt 2 now owns" in caplog.text


def test_what_goes_wrong_is_only_logged(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    storage.write("dataset/report.json", b"not JSON")
    report_failure(a_run(storage), Diverged("step 2"))
    assert "the failed run has no report" in caplog.text


def test_it_does_not_wait_for_a_store_that_is_stuck(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.2)
    report_failure(a_run(stuck), Diverged("step 2"))
    assert "could not be written in time" in caplog.text
    assert written(stuck) == set()


def test_a_signal_ends_the_wait(stuck: Stuck, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    run = a_run(stuck)
    signalled = threading.Timer(0.0, lambda: stuck.asked.wait() and run.stop._on_signal(15, None))
    signalled.start()
    report_failure(run, Diverged("step 2"))
    signalled.join()
    assert "could not be written in time" in caplog.text
    assert written(stuck) == set()


def test_nothing_is_written_once_it_was_given_up(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "REPORT_SECONDS", 0.2)
    report_failure(a_run(stuck), Diverged("step 2"))
    stuck.answers.set()
    stuck.reader.join()
    assert written(stuck) == set()
