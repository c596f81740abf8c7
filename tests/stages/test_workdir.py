"""Who shares folders of a work volume: attempts of one run their data, and nobody else anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job.config import Settings
from job.dataset import fetch
from job.ledger import RECORD_KEY, Ledger
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.model import look_at
from job.stages.context import PREPARED, Run
from job.stages.data import prepare_data
from job.stages.workdir import work_dir
from job.storage import Storage
from tests.tiny import write_rows


def settings(tmp_path: Path, **values: Any) -> Settings:
    given: dict[str, Any] = {"run_id": "run-1", "dataset_uri": ("/d",), "output_uri": "/o"}
    given["work_dir"] = tmp_path
    return Settings(**(given | values))


def attempt(storage: Storage, folder: Path, given: Settings) -> Run:
    """The next one, which has taken over what it may."""
    nobody: Any = None
    metrics = Metrics(BuildInfo(version="1", engine="e", profile="p", model="m"))
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    run = Run(given, folder, storage, metrics, StopToken(), ledger, nobody, nobody)
    run.replace_older_attempts()
    return run


def test_runs_of_one_id_in_two_outputs_share_no_folder(tmp_path: Path) -> None:
    with (
        work_dir(settings(tmp_path)) as one,
        work_dir(settings(tmp_path, output_uri="/other")) as other,
        work_dir(settings(tmp_path)) as again,
    ):
        assert one == again != other
        assert {one.parent, other.parent} == {tmp_path}


def test_a_run_that_is_begun_anew_finds_nothing_of_the_one_before(
    directory: Storage, tmp_path: Path
) -> None:
    """Both have a first attempt; what the older one merged was published as the newer one's."""
    work = tmp_path / "work"
    before = attempt(directory, work, settings(work))
    (before.own_dir / "merged").mkdir(parents=True)
    (work / "attempt-001" / "merged").mkdir(parents=True)  # as earlier releases had them
    directory.delete([RECORD_KEY])
    anew = attempt(directory, work, settings(work))
    assert anew.ledger.attempt == before.ledger.attempt == 1
    assert anew.own_dir != before.own_dir
    assert list(work.iterdir()) == []


def test_older_attempts_leave_their_data_and_newer_ones_are_left_alone(
    directory: Storage, tiny_model: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    given = settings(work, dataset_uri=(str(rows),), model=str(tiny_model), model_family="smollm2")
    model = look_at(given, work)
    first = attempt(directory, work, given)
    prepare_data(first, fetch(given.dataset_uri, work / "data"), model)
    store = (first.own_dir / PREPARED / "store").stat().st_ino
    (first.own_dir / "merged").mkdir()

    second = attempt(directory, work, given)
    assert (second.own_dir / PREPARED / "store").stat().st_ino == store
    assert [path.name for path in second.own_dir.iterdir()] == [PREPARED]
    assert not first.own_dir.exists()

    first.replace_older_attempts()  # it lives on, and doesn't know yet that it was replaced
    assert (second.own_dir / PREPARED).exists()
