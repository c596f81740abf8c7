"""The whole job, preempted and resumed, against stores that are not the embedded one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from job.ledger import read_record
from job.storage import open_storage
from tests import stores
from tests.chaos.observer import Observer
from tests.e2e.jobs import preempted, run

OTHERS = [name for name in stores.ALL if name != "embedded"]


@pytest.fixture(params=OTHERS)
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """In place of the embedded server's: `job_env` is built on it."""
    stores.use(stores.env_of(request.param, request), monkeypatch)
    with stores.fresh_place() as place:
        yield place


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_preempted_and_resumed(job_env: dict[str, str], bucket: str, tmp_path: Path) -> None:
    env = job_env | {"FORGE_MAX_STEPS": "12", "FORGE_SAVE_STEPS": "3"}
    preempted(env, tmp_path / "first.log", after_step=5)
    observer = Observer(open_storage(f"{bucket}/out/run"))
    observer.look()

    second = run(env, tmp_path / "second.log")

    assert second.code == 0, second.log
    observer.look()
    assert observer.violations == []
    found = read_record(observer.storage)
    assert found is not None
    assert found[0].status == "succeeded"
    assert [attempt.exit_code for attempt in found[0].attempts] == [75, 0]
    assert found[0].attempts[1].from_step >= 5
    assert found[0].attempts[1].resume_drift in (None, 0)  # None: stopped between two steps
    left = {info.key.split("/")[1] for info in observer.storage.list("checkpoints/")}
    assert left == {checkpoint.key.split("/")[1] for checkpoint in found[0].checkpoints}
