"""Event files of a real run, read back by TensorBoard itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from job.storage import open_storage
from tests.e2e.jobs import preempted, run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_event_files_of_all_attempts_reach_the_store(
    job_env: dict[str, str], tmp_path: Path
) -> None:
    env = job_env | {"FORGE_REPORT_TO": "tensorboard", "FORGE_MAX_STEPS": "12"}
    preempted(env, tmp_path / "first.log", after_step=4)
    ended = run(env, tmp_path / "second.log")
    assert ended.code == 0, ended.log

    storage = open_storage(f"{env['FORGE_OUTPUT_URI']}/run")
    steps: dict[str, list[int]] = {}
    for info in storage.list("tensorboard/"):
        _, attempt, name = info.key.split("/")
        path = tmp_path / attempt / name
        path.parent.mkdir(exist_ok=True)
        storage.download(info.key, path)
        events = EventAccumulator(str(path)).Reload()
        found = events.Scalars("train/loss")
        steps[attempt] = [event.step for event in found]
    assert sorted(steps) == ["attempt-001", "attempt-002"]
    assert steps["attempt-001"] + steps["attempt-002"] == list(range(1, 13))


def test_a_tracker_that_fails_ends_no_run(job_env: dict[str, str], tmp_path: Path) -> None:
    """Its folder can't be made: a file lies where the attempt's would be."""
    env = job_env | {"FORGE_REPORT_TO": "tensorboard", "FORGE_MAX_STEPS": "2"}
    in_the_way = tmp_path / "work" / "run" / "attempt-001" / "tensorboard"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    ended = run(env, tmp_path / "log")
    assert ended.code == 0, ended.log
    warnings = [e["message"] for e in ended.events() if "left out from now on" in e["message"]]
    assert len(warnings) == 1
    assert warnings[0].startswith("TensorBoard fails")
