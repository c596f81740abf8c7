"""SIGTERM in every phase ends with 75, whatever the process is doing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from job.ledger import read_record
from job.storage import open_storage
from tests.e2e.jobs import started


@pytest.mark.parametrize(
    "phase",
    [
        "at once",
        "starting",
        "data",
        "model",
        pytest.param("training", marks=pytest.mark.slow),
        pytest.param("evaluation", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_sigterm_ends_with_75(job_env: dict[str, str], tmp_path: Path, phase: str) -> None:
    log = Path(job_env["FORGE_TERMINATION_LOG"])
    log.touch()
    env = job_env | {"FORGE_MAX_STEPS": "4", "FORGE_SAVE_STEPS": "1000"}
    with started(env, tmp_path / "log") as job:
        if phase == "at once":
            job.handles_signals()
        else:
            job.wait_until(lambda progress: progress.get("phase") == phase)
        job.signal(signal.SIGTERM)
        ended = job.ended()
    assert ended.code == 75, ended.log
    assert log.read_text().startswith("exit 75: preempted: received SIGTERM")
    found = read_record(open_storage(f"{env['FORGE_OUTPUT_URI']}/run"))
    if phase in ("data", "model", "training", "evaluation"):
        assert found is not None
        assert found[0].status == "preempted"
        assert found[0].adapter is None
    if phase == "evaluation":
        assert found is not None
        assert found[0].checkpoints[-1].step == 4  # training is not repeated
