"""What a rank other than 0 makes of what it finds, with a stand-in for the group."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from job.checkpoint import Rejected, upload_folder
from job.config import Settings
from job.dataset import ChatFormat, DataRejected, fetch, scan
from job.distributed import follower as following
from job.distributed.follower import _Follower, follow, follow_late
from job.errors import JobError, Preempted, Unavailable
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.ranks import AllOver, End, PeerLost, Place, StoppedTogether
from job.stages.handover import SOURCES, START
from job.stages.workdir import run_folder
from job.storage import Storage, open_storage
from tests.hours import Hours
from tests.ledger.wrapped import Failing, Wrapped
from tests.tiny import write_rows


class Group:
    """Rank 1 of two nodes with one process each; rank 0 has ended already."""

    rank, size = 1, 2
    place = Place(rank=1, size=2, local_rank=0, local_size=1, node=1, host="", port=0)
    others_asked = False
    trains = True

    def __init__(self, sources: dict[str, Any] | None, end: End | None) -> None:
        self._sources = sources
        self._end = end

    def hear(self, topic: str) -> dict[str, Any]:
        assert topic == SOURCES
        if self._sources is None:
            raise AllOver
        return self._sources

    def owners_end(self, seconds: float | None = None) -> End | None:
        return self._end


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Settings:
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    rows.write_text(rows.read_text() + json.dumps({"messages": []}) + "\n")
    return Settings(
        run_id="run",
        dataset_uri=str(rows),
        output_uri=str(tmp_path / "out"),
        model=str(tiny_model),
        model_family="smollm2",
        work_dir=tmp_path / "work",
        metrics_port=0,
        rank_join_seconds=10,
    )


@pytest.fixture
def sources(settings: Settings, tmp_path: Path) -> dict[str, Any]:
    files = fetch(settings.dataset_uri, tmp_path / "data")
    return {
        "attempt": "attempt-001-of-this-run",
        "pins": [asdict(file.source) for file in files],
        "revision": None,
        "gradient_accumulation_steps": 1,
        "had_card": False,
    }


def test_rank_0_reports_invalid_rows_first(settings: Settings, sources: dict[str, Any]) -> None:
    group: Any = Group(sources, End(0, DataRejected.exit_code, "as rank 0 has found"))
    with pytest.raises(JobError, match="as rank 0 has found") as caught:
        follow(settings, group, StopToken())
    assert caught.value.exit_code == DataRejected.exit_code


def test_nodes_share_no_folder(settings: Settings, sources: dict[str, Any], tmp_path: Path) -> None:
    group: Any = Group(sources, End(0, DataRejected.exit_code, "the same"))
    work = run_folder(tmp_path / "work", settings)
    theirs = work / "attempt-001-of-this-run" / "prepared"
    theirs.mkdir(parents=True)
    with pytest.raises(JobError):
        follow(settings, group, StopToken())
    assert theirs.is_dir()


def test_a_run_that_was_finished_before_needs_nobody(settings: Settings) -> None:
    group: Any = Group(None, End(0, 0, "succeeded"))
    assert follow(settings, group, StopToken()) == "the run was finished before"


def test_its_hours_of_tokenizing_are_no_stall(
    settings: Settings, sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = Hours()
    monkeypatch.setattr(following, "Metrics", lambda _build: hours.metrics)
    monkeypatch.setattr(ChatFormat, "encode", hours.lengthened(ChatFormat.encode, 500))
    monkeypatch.setattr(scan, "_BATCH_ROWS", 1)
    group: Any = Group(sources, End(0, DataRejected.exit_code, "the same"))
    with pytest.raises(JobError, match="the same"):
        follow(settings, group, StopToken())
    assert len(hours.well) * 500 > 3600
    assert all(hours.well)


# -- the checkpoint to start from -----------------------------------------------------------------


class _Ready(Exception):
    """All lies ready on the node."""


class Resuming(Group):
    """Rank 0 resumes from a checkpoint."""

    def __init__(self, sources: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        super().__init__(sources, None)
        self._checkpoint = checkpoint

    def hear(self, topic: str) -> dict[str, Any]:
        if topic == START:
            return {"checkpoint": self._checkpoint, "fit": None}
        return super().hear(topic)

    def tell(self, topic: str, message: dict[str, Any]) -> None:
        raise _Ready


@pytest.fixture
def stored(settings: Settings) -> Storage:
    return open_storage(settings.run_uri)


@pytest.fixture
def resuming(
    settings: Settings, stored: Storage, sources: dict[str, Any], tmp_path: Path
) -> Resuming:
    made = tmp_path / "made"
    made.mkdir()
    (made / "state").write_text("step 30")
    folder = upload_folder(stored, "checkpoints/00000030-001/", made, 30)
    checkpoint = {"key": folder.key, "manifest_sha256": folder.manifest_sha256, "step": 30}
    return Resuming(sources, checkpoint)


@pytest.fixture
def valid(settings: Settings) -> Settings:
    """Without the row that is not."""
    return settings.model_copy(update={"invalid_rows": "skip", "max_invalid_fraction": 0.5})


def _restored(settings: Settings) -> str:
    [path] = Path(str(settings.work_dir)).glob("run-*/node-1/attempt-001-*/restored/*/state")
    return path.read_text()


def test_a_torn_transfer_of_the_checkpoint_is_made_once_more(
    valid: Settings, stored: Storage, resuming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = Wrapped(stored, before=Failing("download", "state", Rejected("torn")))
    monkeypatch.setattr(following, "open_storage", lambda *_: torn)
    with pytest.raises(_Ready):
        follow(valid, resuming, StopToken())
    assert _restored(valid) == "step 30"


def test_one_that_stays_damaged_is_told_with_its_place(
    valid: Settings, stored: Storage, resuming: Any
) -> None:
    stored.write("checkpoints/00000030-001/state", b"step 31")
    with pytest.raises(JobError, match="state has another SHA-256 than was committed") as caught:
        follow(valid, resuming, StopToken())
    [problem] = caught.value.problems
    assert problem.where == f"{stored.uri}/checkpoints/00000030-001/"
    assert caught.value.exit_code == JobError.exit_code


def test_an_outage_is_waited_out_as_rank_0_does(
    valid: Settings, stored: Storage, resuming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = Wrapped(stored, before=Failing("read", "manifest", *[Unavailable("down")] * 3))
    monkeypatch.setattr(following, "open_storage", lambda *_: down)
    stop = StopToken()
    monkeypatch.setattr(stop, "pause", lambda _seconds: None)
    with pytest.raises(_Ready):
        follow(valid, resuming, stop)
    assert _restored(valid) == "step 30"


def test_a_signal_ends_that_wait(
    valid: Settings, stored: Storage, resuming: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopToken()

    def fails(verb: str, key: str) -> None:
        if verb == "read" and "manifest" in key:
            stop.request(Preempted("received SIGTERM"))
            raise Unavailable("down")

    monkeypatch.setattr(following, "open_storage", lambda *_: Wrapped(stored, before=fails))
    with pytest.raises(Preempted):
        follow(valid, resuming, stop)


# -- the end --------------------------------------------------------------------------------------


class Ending(Group):
    """Rank 0 says at the third question how it ends, or is lost then."""

    def __init__(self, end: End | PeerLost, sources: dict[str, Any] | None = None) -> None:
        super().__init__(sources, None)
        self._outcome = end
        self.asked = 0

    def hear(self, topic: str) -> dict[str, Any]:
        if topic == START:
            return {"checkpoint": None, "fit": None, "validation_changed": False}
        return super().hear(topic)

    def owners_end(self, seconds: float | None = None) -> End | None:
        self.asked += 1
        if self.asked < 3:
            return None
        if isinstance(self._outcome, PeerLost):
            raise self._outcome
        return self._outcome

    def trained(self) -> None:
        self.trains = False


def _end_of_all(settings: Settings, group: Any, stop: StopToken, stopped: Preempted) -> Any:
    metrics, sources = Metrics(BuildInfo("1", "reference", "fast_dev", "")), {"attempt": "x"}
    following_it = _Follower(settings, group, stop, metrics, sources, Path("/nowhere"))
    return following_it._end_of_all(stopped)


def test_one_that_only_stopped_with_the_others_waits_for_rank_0_without_a_clock(
    settings: Settings,
) -> None:
    """Its report and its linger may take longer than a grace period; 75 would not be counted."""
    stop, stopped = StopToken(grace_seconds=0), StoppedTogether(failed=True)
    stop.request(stopped)
    group = Ending(End(0, 69, "storage is down"))
    assert _end_of_all(settings, group, stop, stopped).exit_code == 69


def test_one_that_is_wanted_elsewhere_has_its_grace_period(settings: Settings) -> None:
    stop = StopToken(grace_seconds=0)
    stop.preempt(signal.SIGTERM)
    group, stopped = Ending(End(0, 69, "storage is down")), Preempted("received SIGTERM")
    assert _end_of_all(settings, group, stop, stopped) is stopped
    assert group.asked == 0


@pytest.mark.parametrize(("failed", "code"), [(True, 70), (False, 75)])
def test_where_rank_0_is_lost_then_the_stop_says_what_it_was(
    settings: Settings, failed: bool, code: int
) -> None:
    stopped = StoppedTogether(failed=failed)
    ended = _end_of_all(settings, Ending(PeerLost("no sign of rank 0")), StopToken(), stopped)
    assert ended.exit_code == code


def test_a_signal_after_training_needs_no_word_of_rank_0(
    valid: Settings, sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which evaluates, for longer than a grace period."""

    def train(*_: Any, on_trained: Any, **__: Any) -> None:
        on_trained()
        raise Preempted("received SIGTERM")

    monkeypatch.setattr("job.training.train", train)
    group: Any = Ending(End(0, 0, "succeeded"), sources)
    told: list[str] = []
    group.tell = lambda topic, _message: told.append(topic)
    with pytest.raises(Preempted, match="received SIGTERM"):
        follow(valid.model_copy(update={"engine": "reference"}), group, StopToken())
    assert (told, group.asked) == (["node-1"], 0)


@pytest.mark.parametrize("code", [0, 70])
def test_its_replacement_ends_as_rank_0_does(settings: Settings, code: int) -> None:
    group: Any = Ending(End(0, code, "as rank 0 says"))
    if not code:
        assert follow_late(settings, group) == "succeeded with rank 0"
        return
    with pytest.raises(JobError, match="as rank 0 says") as caught:
        follow_late(settings, group)
    assert caught.value.exit_code == code
