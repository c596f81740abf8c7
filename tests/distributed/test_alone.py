"""A process of a finished run that is started again, and whose neighbours don't come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.checkpoint import upload_folder
from job.config import Settings
from job.distributed import rank as together
from job.errors import FingerprintMismatch, GateFailed, Unavailable
from job.ledger import RECORD_KEY, Adapter, RunRecord, read_record
from job.lifecycle import StopToken
from job.logs import LogContext
from job.promotion import PROMOTED_KEY
from job.promotion.gate import PASSED
from job.ranks import PeerLost, Place
from job.storage import open_storage
from job.watchdog import Watch
from tests.ports import own_port

ALL_RANKS = pytest.mark.parametrize("rank", [0, 1])


def finished(folder: Path, **record: Any) -> Settings:
    settings = Settings(
        run_id="run",
        dataset_uri="/nowhere",
        output_uri=str(folder / "out"),
        work_dir=folder / "work",
        rank_join_seconds=1,
    )
    record = {"run_id": "run", "attempt": 1, "adapter": _published(settings, folder)} | record
    record.setdefault("attempts", [{"number": 1, "holder": {"token": "t", "host": "pod"}}])
    written = RunRecord.model_validate(record).model_dump_json()
    open_storage(settings.run_uri).write(RECORD_KEY, written.encode())
    return settings


def _published(settings: Settings, folder: Path) -> Adapter:
    made = folder / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_text("weights")
    stored = upload_folder(open_storage(settings.run_uri), "adapter/", made, 9)
    return Adapter(key=stored.key, manifest_sha256=stored.manifest_sha256, bytes=7, step=9)


def damaged(settings: Settings) -> Settings:
    open_storage(settings.run_uri).write("adapter/adapter_model.safetensors", b"other")
    return settings


def started_alone(settings: Settings, rank: int = 0) -> object:
    """How that rank of two ends."""
    stop = StopToken()
    with own_port() as port:
        return together.run_together(
            settings,
            Place(rank, 2, 0, 1, rank, "127.0.0.1", port),
            stop=stop,
            context=LogContext("run", interactive=False),
            watch=Watch(stop, lambda cause: pytest.fail(str(cause))),
        )


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("job.ranks.meeting._TRY_SECONDS", 1.0)  # of one who finds no rank 0


@ALL_RANKS
def test_there_is_nothing_to_wait_for(tmp_path: Path, rank: int) -> None:
    found = started_alone(finished(tmp_path, status="succeeded"), rank)
    assert found == "the run is finished: there is nothing to train"


@ALL_RANKS
def test_a_failed_gate_stays_one(tmp_path: Path, rank: int) -> None:
    settings = finished(tmp_path, status="gate_failed", results={"gate": "not better"})
    with pytest.raises(GateFailed, match="not better"):
        started_alone(settings, rank)


def test_a_run_that_is_not_finished_needs_all(tmp_path: Path) -> None:
    with pytest.raises(PeerLost, match="rank 1 of 2 did not come"):
        started_alone(finished(tmp_path, status="preempted"))


@ALL_RANKS
def test_so_does_one_whose_adapter_is_damaged(
    tmp_path: Path, rank: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is published anew, by all. That it is damaged is found once."""
    with pytest.raises(PeerLost, match=r"did not come|does not answer"):
        started_alone(damaged(finished(tmp_path, status="succeeded")), rank)
    assert caplog.text.count("the finished run's adapter is damaged") == 1


@ALL_RANKS
def test_a_longer_plan_is_refused_as_with_all_others_there(tmp_path: Path, rank: int) -> None:
    settings = finished(tmp_path, status="succeeded", fingerprint={"max_steps": 9})
    with pytest.raises(FingerprintMismatch, match="max_steps: was 9, is now 500"):
        started_alone(settings.model_copy(update={"max_steps": 500}), rank)


@pytest.mark.parametrize(("rank", "promotes"), [(0, True), (1, False)])
def test_a_promotion_that_is_due_is_made_by_rank_0_alone(
    tmp_path: Path, rank: int, promotes: bool
) -> None:
    settings = finished(tmp_path, status="succeeded", results={"gate": PASSED})
    started_alone(settings, rank)
    assert (PROMOTED_KEY in _names(settings)) == promotes
    found = read_record(open_storage(settings.run_uri))
    assert found is not None
    assert found[0].promotion_settled == promotes
    if promotes:
        promoted = json.loads(open_storage(settings.output_uri).read(PROMOTED_KEY)[0])
        assert promoted["run_id"] == "run"


def _names(settings: Settings) -> set[str]:
    return {info.key for info in open_storage(settings.output_uri).list()}


def test_an_outage_is_no_end_of_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object) -> None:
        raise Unavailable("down")

    settings = finished(tmp_path, status="succeeded")
    monkeypatch.setattr("job.stages.finished.publish.verify", down)
    with pytest.raises(PeerLost, match="rank 1 of 2 did not come"):
        started_alone(settings)
