"""Which upload goes on and which is given up, and what is noted behind the training's back."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.checkpoint import CheckpointUploader, Grace, Local
from job.errors import AccessDenied, JobError, Preempted, Unavailable
from job.ledger import Ledger, Pace, RunRecord, read_record
from job.lifecycle import StopToken
from job.storage import Storage
from job.storage.base import Unanswered
from tests.ledger.wrapped import Failing, Wrapped, wait_until


class Slow:
    """A hook that holds the uploads of some steps up until they are let go, or cancelled."""

    def __init__(self, *steps: int) -> None:
        self._keys = {f"{step:08d}-": threading.Event() for step in steps}
        self.reached = {step: threading.Event() for step in steps}
        self._steps = dict(zip(self._keys, steps, strict=True))

    def __call__(self, verb: str, key: str) -> None:
        for part, go in self._keys.items():
            if verb == "upload" and part in key:
                self.reached[self._steps[part]].set()
                assert go.wait(60)

    def let_go(self) -> None:
        for go in self._keys.values():
            go.set()


class Bench:
    def __init__(self, storage: Storage, folder: Path) -> None:
        self.storage = Wrapped(storage)
        self.ledger = Ledger.claim(self.storage, "run-1", version="1", conditional_writes=True)
        self.folder = folder
        self.stop = StopToken(grace_seconds=30)
        self.failures: list[str] = []

    @contextmanager
    def uploader(
        self,
        *,
        pace: Pace | None = None,
        patience: float = 3600,
        tries: int = 1,
        needs_best: bool = True,
    ) -> Iterator[CheckpointUploader]:
        with CheckpointUploader(
            self.storage,
            self.ledger,
            self.stop,
            keep=3,
            needs_best=needs_best,
            patience_seconds=patience,
            tries=tries,
            grace=Grace(30, pace),
            on_failure=self.failures.append,
        ) as uploader:
            yield uploader

    def local(self, step: int, eval_loss: float | None = None) -> Local:
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text(f"step {step}")
        return Local(folder, step, eval_loss)

    @property
    def record(self) -> RunRecord:
        found = read_record(self.storage.inner)
        assert found is not None
        return found[0]

    @property
    def steps(self) -> list[int]:
        return [checkpoint.step for checkpoint in self.record.checkpoints]


@pytest.fixture
def bench(directory: Storage, tmp_path: Path) -> Bench:
    return Bench(directory, tmp_path / "work")


LONG = Pace(upload_seconds=1000, commit_seconds=1)
SHORT = Pace(upload_seconds=1, commit_seconds=1)


def test_one_that_has_hardly_begun_gives_way_to_a_newer_one(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    older = bench.local(1)
    with bench.uploader(pace=LONG) as uploader:
        uploader.submit(older)
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2))
        assert uploader.flush(60)
        assert bench.steps == [2]
        slow.let_go()
    assert not older.folder.exists()
    assert bench.failures == []


def test_never_two_in_a_row(bench: Bench) -> None:
    """Saves that follow each other faster than uploads still make something durable."""
    bench.storage.before = slow = Slow(1, 2)
    with bench.uploader(pace=LONG) as uploader:
        uploader.submit(bench.local(1))
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2))
        assert slow.reached[2].wait(60)
        uploader.submit(bench.local(3))
        slow.let_go()
        assert uploader.flush(60)
    assert bench.steps == [2, 3]


def test_the_best_so_far_is_given_up_for_none_that_is_worse(bench: Bench) -> None:
    """Neither in an ordinary moment nor before the end."""
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=LONG) as uploader:
        uploader.submit(bench.local(1, 0.5))
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2, 0.6))
        bench.stop.request(Preempted("SIGTERM"))
        uploader.submit(bench.local(3))
        slow.let_go()
        assert uploader.flush(60)
    assert bench.steps == [1, 3]


def test_the_best_so_far_waits_beside_the_newest(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=Pace(upload_seconds=1e-6)) as uploader:
        uploader.submit(bench.local(1))
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2, 0.5))
        uploader.submit(bench.local(3, 0.7))
        uploader.submit(bench.local(4))
        slow.let_go()
        assert uploader.flush(60)
    assert bench.steps == [1, 2, 4]


def test_one_that_was_the_best_gives_way_to_a_better_one(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=LONG) as uploader:
        uploader.submit(bench.local(1, 0.5))
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2, 0.4))
        assert uploader.flush(60)
        slow.let_go()
    assert bench.steps == [2]


def test_one_that_the_record_has_better_ones_than_gives_way(bench: Bench) -> None:
    bench.storage.before = slow = Slow(2)
    with bench.uploader() as before:
        before.submit(bench.local(1, 0.5))
        assert before.flush(60)
    with bench.uploader(pace=LONG) as uploader:  # another: the one before has learned its pace
        uploader.submit(bench.local(2, 0.6))
        assert slow.reached[2].wait(60)
        uploader.submit(bench.local(3))
        assert uploader.flush(60)
        slow.let_go()
    assert bench.steps == [1, 3]


def test_without_early_stopping_the_newest_is_all_that_counts(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=LONG, needs_best=False) as uploader:
        uploader.submit(bench.local(1, 0.5))
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2))
        assert uploader.flush(60)
        slow.let_go()
    assert bench.steps == [2]


def test_one_that_is_more_than_half_done_goes_on(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=Pace(upload_seconds=1e-6)) as uploader:
        uploader.submit(bench.local(1))
        assert slow.reached[1].wait(60)
        uploader.submit(bench.local(2))
        slow.let_go()
        assert uploader.flush(60)
    assert bench.steps == [1, 2]


def test_one_that_waits_out_an_outage_gives_way(bench: Bench) -> None:
    bench.storage.before = Failing("upload", "00000001", *[Unavailable("down")] * 1000)
    with bench.uploader(pace=SHORT) as uploader:
        uploader.submit(bench.local(1))
        wait_until(lambda: bool(bench.failures))
        uploader.submit(bench.local(2))
        assert uploader.flush(60)
    assert bench.steps == [2]


def test_an_outage_is_one_however_many_checkpoints_it_spoils(bench: Bench) -> None:
    bench.storage.before = Failing("upload", "", *[Unavailable("down")] * 1000)
    with bench.uploader(patience=0.5) as uploader:
        for step in range(1, 200):
            if bench.stop.requested:
                break
            uploader.submit(bench.local(step))
            bench.stop._requested.wait(0.1)
    assert isinstance(bench.stop.cause, Unavailable)
    assert step < 100, "each checkpoint had patience of its own"


class Fails:
    """A hook: each try of an upload takes a while and fails, as in a store that does not answer."""

    def __init__(self, error: type[JobError], seconds: float = 0.3) -> None:
        self._error, self._seconds = error, seconds

    def __call__(self, verb: str, key: str) -> None:
        if verb == "upload":
            time.sleep(self._seconds)
            raise self._error("no answer")


def saves_until_stopped(bench: Bench, uploader: CheckpointUploader, every: float) -> None:
    """Checkpoints follow each other, each before a try of the one before has failed."""
    for step in range(1, 100):
        if bench.stop.requested:
            return
        uploader.submit(bench.local(step))
        bench.stop._requested.wait(every)
    raise AssertionError("nothing becomes durable, and nobody is told")


def test_newer_checkpoints_do_not_hide_a_store_that_hangs(bench: Bench) -> None:
    bench.storage.before = Fails(Unanswered)
    with bench.uploader(patience=1, needs_best=False) as uploader:
        saves_until_stopped(bench, uploader, 0.1)
    assert isinstance(bench.stop.cause, Unanswered)


def test_newer_checkpoints_do_not_hide_a_refusal(bench: Bench) -> None:
    bench.storage.before = Fails(AccessDenied)
    with bench.uploader(tries=3, needs_best=False) as uploader:
        saves_until_stopped(bench, uploader, 0.1)
    assert isinstance(bench.stop.cause, AccessDenied)
    assert bench.failures == ["AccessDenied"] * 3


def test_files_that_arrive_make_up_for_no_commit_that_is_refused(bench: Bench) -> None:
    bench.storage.before = Failing("write", "run.json", *[AccessDenied("no")] * 100)
    with bench.uploader(tries=3, needs_best=False) as uploader:
        saves_until_stopped(bench, uploader, 0.05)
    assert isinstance(bench.stop.cause, AccessDenied)
    assert bench.steps == []


def test_a_long_upload_that_fails_at_its_end_is_tried_again(bench: Bench) -> None:
    def fail(verb: str, key: str) -> None:
        if verb == "upload" and not bench.failures:
            time.sleep(0.5)
            raise Unavailable("a moment's")

    bench.storage.before = fail
    with bench.uploader(patience=0.2) as uploader:
        uploader.submit(bench.local(1))
        assert uploader.flush(60)
    assert bench.steps == [1]


def test_before_the_end_the_newest_does_not_wait_for_a_try_that_hangs(bench: Bench) -> None:
    bench.storage.before = hook = FailsThenHangs("00000001")
    with bench.uploader(pace=SHORT) as uploader:
        uploader.submit(bench.local(1))
        assert hook.hangs.wait(60)
        uploader.submit(bench.local(2))
        bench.stop.request(Preempted("SIGTERM"))
        assert uploader.flush(20)
        hook.go_on.set()
    assert bench.steps == [2]


class FailsThenHangs:
    """A hook: the first try of that upload fails, the second does not end."""

    def __init__(self, key: str) -> None:
        self._key, self._failed = key, False
        self.hangs, self.go_on = threading.Event(), threading.Event()

    def __call__(self, verb: str, key: str) -> None:
        if verb != "upload" or self._key not in key:
            return
        if not self._failed:
            self._failed = True
            raise Unavailable("down")
        self.hangs.set()
        self.go_on.wait(60)


def test_before_the_end_the_newest_is_saved_if_it_can_be(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=Pace(upload_seconds=20, commit_seconds=1)) as uploader:
        uploader.submit(bench.local(1))
        assert slow.reached[1].wait(60)
        bench.stop.request(Preempted("SIGTERM"))
        uploader.submit(bench.local(2))
        assert uploader.flush(60)
        slow.let_go()
    assert bench.steps == [2]


def test_before_the_end_the_older_one_is_kept_if_the_newest_can_not_be_saved(bench: Bench) -> None:
    bench.storage.before = slow = Slow(1)
    with bench.uploader(pace=Pace(upload_seconds=40, commit_seconds=1)) as uploader:
        uploader.submit(bench.local(1))
        assert slow.reached[1].wait(60)
        bench.stop.request(Preempted("SIGTERM"))
        uploader.submit(bench.local(2))
        slow.let_go()
        assert uploader.flush(60)
    assert 1 in bench.steps


def test_a_stop_ends_the_wait_for_a_store_that_is_back(bench: Bench) -> None:
    bench.storage.before = Failing("upload", "", *[Unavailable("down")] * 6)
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))
        wait_until(lambda: bool(bench.failures))
        bench.stop.request(Preempted("SIGTERM"))
        assert uploader.flush(30), "it waits for its next try as if there were time"
    assert bench.steps == [1]


def test_a_refusal_is_tried_again_and_then_raised(bench: Bench) -> None:
    bench.storage.before = failing = Failing("upload", "", *[AccessDenied("no")] * 10)
    with bench.uploader(tries=3) as uploader:
        uploader.submit(bench.local(1))
        assert uploader.flush(60)
    assert isinstance(bench.stop.cause, AccessDenied)
    assert bench.failures == ["AccessDenied"] * 3
    assert len(failing.left) == 7


def test_a_refusal_that_passes_is_survived(bench: Bench) -> None:
    bench.storage.before = Failing("upload", "", AccessDenied("the token was just renewed"))
    with bench.uploader(tries=3) as uploader:
        uploader.submit(bench.local(1))
        assert uploader.flush(60)
    assert bench.stop.cause is None
    assert bench.steps == [1]


# -- notes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["committed", "on its way", "waiting"])
def test_a_note_reaches_its_checkpoint_wherever_that_is(bench: Bench, when: str) -> None:
    bench.storage.before = slow = Slow(1, 2)
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))
        assert slow.reached[1].wait(60)
        if when == "waiting":
            uploader.submit(bench.local(2))
        if when == "committed":
            slow.let_go()
            assert uploader.flush(60)
        step = 2 if when == "waiting" else 1
        uploader.annotate(step, eval_loss=0.25)
        slow.let_go()
        assert uploader.flush(60), "what waits for durable states waits for notes, too"
        found = {c.step: c.eval_loss for c in bench.record.checkpoints}
    assert found[step] == 0.25


def test_a_note_survives_an_outage(bench: Bench) -> None:
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))
        assert uploader.settle(60)
        bench.storage.before = Failing("write", "run.json", *[Unavailable("down")] * 2)
        uploader.annotate(1, eval_loss=0.25)
        assert uploader.settle(60)
    assert bench.record.checkpoints[0].eval_loss == 0.25


def test_handing_over_never_waits_for_the_record(bench: Bench) -> None:
    held, go = threading.Event(), threading.Event()

    def hang(verb: str, key: str) -> None:
        if verb == "write" and key == "run.json":
            held.set()
            assert go.wait(60)

    bench.storage.before = hang
    with bench.uploader() as uploader:
        uploader.later(lambda record: setattr(record, "effective_batch_size", 1))
        assert held.wait(60)
        uploader.submit(bench.local(1))  # would hang here
        uploader.annotate(1, eval_loss=0.5)
        go.set()
        assert uploader.settle(60)
    assert bench.record.checkpoints[0].eval_loss == 0.5
    assert bench.record.effective_batch_size == 1


def test_a_note_for_no_checkpoint_holds_nothing_up(bench: Bench) -> None:
    with bench.uploader() as uploader:
        uploader.annotate(7, eval_loss=0.5)
        assert uploader.flush(60)


def test_the_way_there_is_recorded_for_the_next_attempt(bench: Bench) -> None:
    with bench.uploader(pace=Pace(micro_batch_seconds=2, write_seconds=3)) as uploader:
        for step in (1, 2):
            uploader.submit(bench.local(step))
            assert uploader.flush(60)
    assert bench.record.pace.micro_batch_seconds == 2
    assert bench.record.pace.upload_seconds > 0


# -- priority -------------------------------------------------------------------------------------


def test_uploads_leave_the_processors_to_the_training(bench: Bench) -> None:
    seen: dict[str, int] = {}

    def look(verb: str, _key: str) -> None:
        priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen[verb] = max(priority, seen.get(verb, -20))

    bench.storage.before = look
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))
        assert uploader.flush(60)
    assert seen["upload"] == seen["write"] == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19
