"""Checkpoints to storage behind the training thread's back, through every kind of trouble."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from job.checkpoint import MANIFEST_NAME, CheckpointUploader, Committed, Local, restore_newest
from job.checkpoint.manifest import Manifest
from job.errors import AccessDenied, Fenced, OutOfDisk, Unavailable
from job.ledger import RECORD_KEY, Ledger, RunRecord, read_record
from job.lifecycle import StopToken
from job.storage import NotFound, Storage
from tests.ledger.wrapped import Failing, Wrapped, wait_until

PATIENT = 3600.0
"""Seconds; no test ends by it."""


@dataclass
class Bench:
    """An uploader at work, and what it said."""

    storage: Wrapped
    ledger: Ledger
    folder: Path
    stop: StopToken = field(default_factory=StopToken)
    committed: list[Committed] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def uploader(self, *, keep: int = 3, patience: float = PATIENT) -> Iterator[CheckpointUploader]:
        with CheckpointUploader(
            self.storage,
            self.ledger,
            self.stop,
            keep=keep,
            patience_seconds=patience,
            on_committed=self.committed.append,
            on_failure=self.failures.append,
        ) as uploader:
            yield uploader

    def local(self, step: int, eval_loss: float | None = None, text: str = "") -> Local:
        folder = self.folder / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "state").write_text(text or f"step {step}")
        (folder / "weights").write_bytes(b"w" * 1000)
        return Local(folder, step, eval_loss)

    @property
    def steps(self) -> list[int]:
        """What the record lists, as everybody else sees it."""
        found = read_record(self.storage.inner)
        assert found is not None
        return [checkpoint.step for checkpoint in found[0].checkpoints]

    @property
    def folders(self) -> set[str]:
        return {info.key.split("/")[1] for info in self.storage.inner.list("checkpoints/")}


def bench_at(storage: Storage, folder: Path) -> Bench:
    wrapped = Wrapped(storage)
    ledger = Ledger.claim(wrapped, "run-1", version="1", conditional_writes=True)
    return Bench(wrapped, ledger, folder)


@pytest.fixture
def bench(directory: Storage, tmp_path: Path) -> Bench:
    return bench_at(directory, tmp_path / "work")


@pytest.fixture
def either(storage: Storage, tmp_path: Path) -> Bench:
    """The bench on both backends."""
    return bench_at(storage, tmp_path / "work")


class Gate:
    """A hook that holds uploads up until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, verb: str, _key: str) -> None:
        if verb == "upload":
            self.reached.set()
            assert self.opened.wait(60)


class Watch:
    """A hook that looks at storage after each change: all that is listed must be whole there."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.looked = 0
        self.broken: list[str] = []

    def __call__(self, verb: str, key: str) -> None:
        if verb not in ("write", "upload", "delete"):
            return
        self.looked += 1
        record = RunRecord.model_validate_json(self._storage.read(RECORD_KEY)[0])
        for checkpoint in record.checkpoints:
            try:
                data, _ = self._storage.read(checkpoint.key + MANIFEST_NAME)
                for name in Manifest.model_validate_json(data).files:
                    self._storage.stat(checkpoint.key + name)
            except NotFound as error:
                self.broken.append(f"after {verb} {key}: {error}")


# -- committing -----------------------------------------------------------------------------------


def test_a_checkpoint_becomes_durable(either: Bench, tmp_path: Path) -> None:
    local = either.local(50, eval_loss=0.5)
    with either.uploader() as uploader:
        uploader.submit(local)
        assert uploader.settle()
    assert either.stop.cause is None
    [committed] = either.committed
    checkpoint = committed.checkpoint
    assert either.ledger.record.checkpoints == [checkpoint]
    assert (checkpoint.step, checkpoint.attempt, checkpoint.eval_loss) == (50, 1, 0.5)
    assert checkpoint.key == "checkpoints/00000050-001/"
    assert checkpoint.bytes == len("step 50") + 1000
    assert committed.upload_seconds > 0
    assert not local.folder.exists(), "the work volume is small"
    restored = restore_newest(either.storage, [checkpoint], tmp_path / "restored")
    assert restored is not None
    assert (restored.path / "state").read_text() == "step 50"


def test_files_then_manifest_then_record(either: Bench) -> None:
    either.storage.calls.clear()
    with either.uploader() as uploader:
        uploader.submit(either.local(50))
        assert uploader.settle()
    key = "checkpoints/00000050-001/"
    calls = either.storage.calls
    assert set(calls[:2]) == {("upload", key + "state"), ("upload", key + "weights")}
    assert calls[2:4] == [("write", key + MANIFEST_NAME), ("write", RECORD_KEY)]


def test_what_is_listed_is_whole_at_every_moment(either: Bench) -> None:
    watch = Watch(either.storage.inner)
    either.storage.after = watch
    with either.uploader(keep=2) as uploader:
        for step in range(1, 6):
            uploader.submit(either.local(step))
            assert uploader.settle()
        uploader.submit(either.local(5, text="the same step once more"))
        assert uploader.settle()
    assert watch.broken == []
    assert watch.looked > 20
    assert either.steps == [4, 5]


def test_the_same_step_again_is_not_listed_while_its_files_change(bench: Bench) -> None:
    listed_meanwhile: list[list[int]] = []
    with bench.uploader() as uploader:
        uploader.submit(bench.local(4))
        assert uploader.settle()
        uploader.submit(bench.local(5))
        assert uploader.settle()
        bench.storage.before = lambda verb, _: (
            listed_meanwhile.append(bench.steps) if verb == "upload" else None
        )
        uploader.submit(bench.local(5, text="once more"))
        assert uploader.settle()
    assert listed_meanwhile == [[4], [4]]
    assert bench.steps == [4, 5]


# -- handing over ---------------------------------------------------------------------------------


def test_handing_over_does_not_wait_for_the_upload(bench: Bench) -> None:
    bench.storage.before = gate = Gate()
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))  # would never return if it waited
        assert gate.reached.wait(60)
        uploader.submit(bench.local(2))
        assert bench.steps == []
        gate.opened.set()
        assert uploader.flush()
    assert bench.steps == [1, 2]


def test_a_waiting_checkpoint_is_superseded_by_a_newer_one(bench: Bench) -> None:
    bench.storage.before = gate = Gate()
    dropped, newest = bench.local(2), bench.local(3)
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))
        assert gate.reached.wait(60)
        uploader.submit(dropped)
        uploader.submit(newest)
        assert not dropped.folder.exists()
        assert newest.folder.exists()
        gate.opened.set()
        assert uploader.flush()
    assert bench.steps == [1, 3]
    assert [committed.checkpoint.step for committed in bench.committed] == [1, 3]


def test_flush_says_when_time_ran_out(bench: Bench) -> None:
    bench.storage.before = gate = Gate()
    with bench.uploader() as uploader:
        assert uploader.flush(0) is True
        uploader.submit(bench.local(1))
        assert uploader.flush(0) is False
        assert gate.reached.wait(60)
        assert uploader.flush(0.01) is False
        gate.opened.set()
        assert uploader.flush() is True


def test_leaving_ends_the_worker(bench: Bench) -> None:
    others = set(threading.enumerate())
    with bench.uploader() as uploader:
        uploader.submit(bench.local(1))
        assert uploader.flush()
    wait_until(lambda: set(threading.enumerate()) <= others)


# -- outages --------------------------------------------------------------------------------------


def once(verb: str, key: str) -> Failing:
    return Failing(verb, key, Unavailable("the store is down"))


@pytest.mark.parametrize(
    ("verb", "key"), [("upload", "weights"), ("write", MANIFEST_NAME), ("write", RECORD_KEY)]
)
def test_an_outage_is_waited_out(either: Bench, verb: str, key: str) -> None:
    either.storage.before = once(verb, key)
    local = either.local(50)
    with either.uploader() as uploader:
        uploader.submit(local)
        assert uploader.settle()
    assert either.stop.cause is None
    assert either.failures == ["unavailable"]
    assert either.steps == [50]
    assert len(either.committed) == 1
    assert not local.folder.exists()


def test_an_outage_of_the_record_does_not_repeat_the_upload(bench: Bench) -> None:
    bench.storage.before = Failing("write", RECORD_KEY, *[Unavailable("down")] * 2)
    with bench.uploader() as uploader:
        uploader.submit(bench.local(50))
        assert uploader.settle()
    assert [verb for verb, _ in bench.storage.calls].count("upload") == 2
    assert bench.steps == [50]


@pytest.mark.parametrize("verb", ["list", "delete"])
def test_an_outage_while_old_ones_are_removed_leaves_no_files(bench: Bench, verb: str) -> None:
    with bench.uploader(keep=1) as uploader:
        uploader.submit(bench.local(1))
        assert uploader.settle()
        bench.storage.before = once(verb, "checkpoints/00000001")
        uploader.submit(bench.local(2))
        assert uploader.settle()
    assert bench.failures == ["unavailable"]
    assert [committed.checkpoint.step for committed in bench.committed] == [1, 2]
    assert bench.steps == [2]
    assert bench.folders == {"00000002-001"}


def test_patience_comes_to_an_end(bench: Bench) -> None:
    bench.storage.before = Failing("upload", "", *[Unavailable("the store is down")] * 100)
    local = bench.local(50)
    with bench.uploader(patience=0) as uploader:
        uploader.submit(local)
        assert uploader.settle()
    assert isinstance(bench.stop.cause, Unavailable)
    assert "the store is down" in str(bench.stop.cause)
    with pytest.raises(Unavailable):
        bench.stop.check()
    assert bench.failures == ["Unavailable"]
    assert bench.steps == []
    assert bench.committed == []
    assert local.folder.exists(), "nothing else has it"


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [AccessDenied("the role may not write"), OutOfDisk("full"), RuntimeError("a bug")]
)
def test_what_waiting_can_not_mend_stops_the_run_at_once(bench: Bench, error: Exception) -> None:
    bench.storage.before = failing = Failing("upload", "weights", error, error)
    with bench.uploader() as uploader:
        uploader.submit(bench.local(50))
        assert uploader.settle()
    assert bench.stop.cause is error
    assert bench.failures == [type(error).__name__]
    assert len(failing.left) == 1, "not tried again"
    assert bench.steps == []


def test_a_folder_that_is_gone_is_not_committed(bench: Bench, tmp_path: Path) -> None:
    local = bench.local(50)
    bench.storage.before = lambda verb, _: (
        (local.folder / "weights").unlink(missing_ok=True) if verb == "upload" else None
    )
    with bench.uploader() as uploader:
        uploader.submit(local)
        assert uploader.settle()
    assert isinstance(bench.stop.cause, FileNotFoundError)
    assert bench.steps == []


def test_a_fenced_attempt_stops_and_touches_nothing_of_the_newer_one(
    either: Bench, tmp_path: Path
) -> None:
    newer = bench_at(either.storage.inner, tmp_path / "newer")
    with newer.uploader() as uploader:
        uploader.submit(newer.local(50, text="newer"))
        assert uploader.settle()
    with either.uploader() as uploader:
        uploader.submit(either.local(50, text="older"))
        assert uploader.settle()
        assert isinstance(either.stop.cause, Fenced)
        assert either.failures == ["Fenced"]

        either.storage.calls.clear()
        uploader.submit(either.local(60, text="older"))
        assert uploader.settle()
    assert either.storage.calls == [], "once fenced, nothing is sent any more"
    assert either.committed == []
    [checkpoint] = newer.ledger.record.checkpoints
    assert newer.steps == [50]
    restored = restore_newest(newer.storage, [checkpoint], tmp_path / "restored")
    assert restored is not None
    assert (restored.path / "state").read_text() == "newer"


def test_an_upload_that_is_under_way_while_it_is_fenced_keeps_to_its_own_folder(
    bench: Bench, tmp_path: Path
) -> None:
    bench.storage.before = gate = Gate()
    with bench.uploader() as uploader:
        uploader.submit(bench.local(50, text="older"))
        assert gate.reached.wait(60)
        newer = bench_at(bench.storage.inner, tmp_path / "newer")
        with pytest.raises(Fenced):
            bench.ledger.set_fields(effective_batch_size=8)
        gate.opened.set()
        assert uploader.settle()
    assert isinstance(bench.stop.cause, Fenced)
    assert bench.folders == {"00000050-001"}
    assert newer.steps == []


# -- keeping --------------------------------------------------------------------------------------


def test_the_newest_and_the_best_stay(either: Bench) -> None:
    losses = {1: 2.0, 2: 0.5, 3: 1.0, 4: 0.9, 5: None, 6: 0.8}
    with either.uploader(keep=2) as uploader:
        for step, loss in losses.items():
            uploader.submit(either.local(step, loss))
            assert uploader.settle()
    assert either.steps == [2, 5, 6]
    assert either.folders == {"00000002-001", "00000005-001", "00000006-001"}


def test_a_checkpoint_leaves_the_record_before_its_files_go(bench: Bench) -> None:
    listed_at_delete: list[list[int]] = []

    def look(verb: str, _key: str) -> None:
        if verb == "delete":
            listed_at_delete.append(bench.steps)

    bench.storage.before = look
    with bench.uploader(keep=1) as uploader:
        for step in (1, 2):
            uploader.submit(bench.local(step))
            assert uploader.settle()
    assert listed_at_delete == [[2]] * 3, "state, weights and manifest of step 1"
