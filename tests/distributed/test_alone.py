"""A process of a finished run that is started again, and whose neighbours don't come."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from job.config import Settings
from job.distributed import rank as together
from job.errors import GateFailed
from job.ledger import RECORD_KEY, RunRecord
from job.lifecycle import StopToken
from job.logs import LogContext
from job.ranks import PeerLost, Place
from job.watchdog import Watch


def finished(folder: Path, **record: object) -> Settings:
    settings = Settings(
        run_id="run", dataset_uri="/nowhere", output_uri=str(folder), rank_join_seconds=1
    )
    path = folder / "run" / RECORD_KEY
    path.parent.mkdir(parents=True)
    path.write_text(RunRecord.model_validate({"run_id": "run", **record}).model_dump_json())
    return settings


def started_alone(settings: Settings) -> object:
    """How rank 0 of two ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    stop = StopToken()
    return together.run_together(
        settings,
        Place(0, 2, 0, 1, 0, "127.0.0.1", port),
        stop=stop,
        context=LogContext("run", interactive=False),
        watch=Watch(stop, lambda cause: pytest.fail(str(cause))),
    )


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_LOOK_SECONDS", 0.0)


def test_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    found = started_alone(finished(tmp_path, status="succeeded"))
    assert found == "the run is finished: there is nothing to train"


def test_a_failed_gate_stays_one(tmp_path: Path) -> None:
    settings = finished(tmp_path, status="gate_failed", results={"gate": "not better"})
    with pytest.raises(GateFailed, match="not better"):
        started_alone(settings)


def test_a_run_that_is_not_finished_needs_all(tmp_path: Path) -> None:
    with pytest.raises(PeerLost, match="rank 1 of 2 did not come"):
        started_alone(finished(tmp_path, status="preempted"))
