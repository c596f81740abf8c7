"""The data stage of a run: what it reports is the newest attempt's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings
from job.dataset import ChatFormat, DataRejected, fetch, reread, scan
from job.errors import Fenced, SettingsError, Unavailable
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.model import look_at
from job.stages.context import Run
from job.stages.data import prepare_data
from job.storage import Storage
from tests.dataset.standin_families import family_folder
from tests.evaluation.test_reading import LLAMA, UNKNOWN, calling
from tests.hours import Hours
from tests.ledger.wrapped import Failing, Wrapped
from tests.tiny import write_rows

NEWER = b"of the newer attempt"


def claim(storage: Storage) -> Ledger:
    return Ledger.claim(storage, "run-1", version="1", conditional_writes=True)


def prepared(
    storage: Storage,
    model: Path,
    data: Path,
    work_dir: Path,
    metrics: Metrics | None = None,
    **values: Any,
) -> None:
    given = {"run_id": "run-1", "dataset_uri": (str(data),), "output_uri": "/o"}
    settings = Settings(**(given | {"model": str(model), "model_family": "smollm2"} | values))
    nobody: Any = None  # the data stage has no checkpoints and no steps
    metrics = metrics or Metrics(BuildInfo(version="1", engine="e", profile="p", model="m"))
    run = Run(settings, work_dir, storage, metrics, StopToken(), claim(storage), nobody, nobody)
    files = fetch(settings.dataset_uri, work_dir / "data")
    prepare_data(run, files, look_at(settings, work_dir))


@pytest.mark.parametrize(
    ("name", "broken"),
    [("report.json", False), ("mask-preview.html", False), ("quarantine.jsonl", True)],
)
def test_who_is_replaced_while_it_reports_its_data_changes_nothing(
    storage: Storage, tiny_model: Path, tmp_path: Path, name: str, broken: bool
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    if broken:
        rows.write_text(rows.read_text() + "no row\n")
    wrapped = Wrapped(storage)

    def replaced(verb: str, key: str) -> None:
        if verb in ("write", "upload") and key == f"dataset/{name}":
            wrapped.before = lambda *_: None
            claim(storage)
            storage.write(key, NEWER)

    wrapped.before = replaced
    with pytest.raises(Fenced):
        prepared(wrapped, tiny_model, rows, tmp_path / "work")
    assert storage.read(f"dataset/{name}")[0] == NEWER


def test_the_reports_of_rejected_data_replace_an_older_attempts(
    storage: Storage, tiny_model: Path, tmp_path: Path
) -> None:
    storage.write("dataset/report.json", b"of an older attempt")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("no row\n")
    with pytest.raises(DataRejected):
        prepared(storage, tiny_model, rows, tmp_path / "work")
    assert b"no row" in storage.read("dataset/quarantine.jsonl")[0]
    assert b"rows.jsonl" in storage.read("dataset/report.json")[0]


def test_an_outage_does_not_cost_what_was_prepared(
    directory: Storage, tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    away = Failing("write", "dataset/report.json", Unavailable("away"))
    prepared(Wrapped(directory, before=away), tiny_model, rows, tmp_path / "work")
    assert not away.left
    assert b"rows.jsonl" in directory.read("dataset/report.json")[0]


@pytest.mark.parametrize(
    ("part", "name", "seconds"),
    [
        pytest.param(scan, "read_rows", 50, id="reading"),
        pytest.param(ChatFormat, "encode", 500, id="tokenizing"),
        pytest.param(reread, "read_lines", 50, id="reading once more"),
    ],
)
def test_hours_of_work_on_rows_are_no_stall_and_a_row_that_hangs_is(
    directory: Storage,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: Any,
    name: str,
    seconds: float,
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 100)
    monkeypatch.setattr(scan, "_BATCH_ROWS", 10)
    monkeypatch.setattr(reread, "_BATCH_LINES", 10)
    work = getattr(part, name)
    for each, well in ((seconds, True), (3601, False)):
        hours = Hours()
        monkeypatch.setattr(part, name, hours.lengthened(work, each))
        hours.metrics.phase("data")
        prepared(directory, tiny_model, rows, tmp_path / f"work-{each}", hours.metrics)
        assert sum(hours.well) * each > 3600 or not well
        assert all(hours.well) is well


def test_a_gate_on_calls_that_nobody_could_judge_ends_the_run_with_the_data(
    directory: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before: every adapter failed it, with 80, after all of the training."""
    model = family_folder(tmp_path / "llama", LLAMA, UNKNOWN)
    (model / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 1024}')
    called = [calling(f"city {number}") for number in range(30)]
    lines = (json.dumps({"tools": row.tools, "messages": row.messages}) for row in called)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(lines))
    with pytest.raises(SettingsError, match="FORGE_GATE_MIN_GAIN"):
        prepared(directory, model, rows, tmp_path / "work", gate_min_gain=0.1)
    prepared(directory, model, rows, tmp_path / "other")
    assert "held-out turns can't be judged and count for nothing" in caplog.text
