"""The rows that a run holds out, asked for by settings and data that are its own, or aren't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from job.config import Settings, load_settings
from job.dataset import PreparedData, PrepareOptions, fetch, prepare
from job.errors import DataError, SettingsError
from job.ledger import Checkpoint, Ledger
from job.model import look_at
from job.stages.fingerprint import of_run
from job.stages.held_out import held_out_rows
from job.storage import open_storage
from tests.dataset.standin import model_folder
from tests.tiny import write_rows

CHECKPOINT = Checkpoint(
    step=8, attempt=1, key="checkpoints/00000008-001/", manifest_sha256="0" * 64, bytes=1
)


@pytest.fixture
def given(tmp_path: Path, bucket: str) -> dict[str, Any]:
    model = model_folder(tmp_path / "model")
    (model / "config.json").write_text('{"model_type": "llama"}')
    put(bucket, "a.jsonl", write_rows(tmp_path / "a.jsonl", 60))
    return {
        "run_id": "run-1",
        "dataset_uri": f"{bucket}/data/",
        "output_uri": f"{bucket}/out",
        "model": str(model),
    }


def put(bucket: str, name: str, content: Path) -> None:
    open_storage(bucket).upload(f"data/{name}", content)


def begin(settings: Settings, folder: Path) -> PreparedData:
    """A run of these settings that got as far as its first checkpoint."""
    files = fetch(settings.dataset_uri, folder / "data")
    model = look_at(settings, folder)
    options = PrepareOptions.from_settings(settings, model.position_limit)
    data = prepare(files, model.chat, options, folder / "prepared")
    storage = open_storage(settings.run_uri)
    ledger = Ledger.claim(storage, settings.run_id, version="1", conditional_writes=True)
    template, counts = model.chat.template_sha256, data.report.counts
    ledger.set_fields(
        fingerprint=of_run(settings, files, model.revision, template, "reference", "bf16", counts),
        checkpoints=[CHECKPOINT],
    )
    return data


def lines(rows: list[Any]) -> list[tuple[str, int]]:
    return [(row.uri, row.line) for row in rows]


def test_a_run_that_has_not_begun_holds_out_what_its_settings_say(
    given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = held_out_rows(load_settings(**given), tmp_path / "judge")
    assert 0 < len(rows) < 60
    assert "only settings say what is held out" in caplog.text


def test_what_came_since_is_not_among_them(
    given: dict[str, Any], bucket: str, tmp_path: Path
) -> None:
    before = begin(load_settings(**given), tmp_path / "run")
    put(bucket, "b.jsonl", write_rows(tmp_path / "b.jsonl", 60, seed=1))
    rows = held_out_rows(load_settings(**given), tmp_path / "judge")
    assert lines(rows) == lines(before.evaluation_rows)


def test_settings_that_hold_out_others_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "run")
    other = load_settings(**given, eval_fraction=0.9, eval_max_rows=7, lora_r=64)
    with pytest.raises(SettingsError) as refused:
        held_out_rows(other, tmp_path / "judge")
    said = str(refused.value)
    assert "FORGE_EVAL_FRACTION: is 0.9, the run run-1 has 0.2" in said
    assert "FORGE_EVAL_MAX_ROWS: is 7, the run run-1 has 512" in said
    assert "--dataset" in said
    assert "lora" not in said, "which no row depends on"


def test_data_that_are_no_longer_to_be_had_are_said_to_be_changed(
    given: dict[str, Any], bucket: str, tmp_path: Path
) -> None:
    begin(load_settings(**given), tmp_path / "run")
    put(bucket, "a.jsonl", write_rows(tmp_path / "a.jsonl", 61))
    with pytest.raises(DataError, match=r"data/a\.jsonl: was changed") as refused:
        held_out_rows(load_settings(**given), tmp_path / "judge")
    assert "--dataset" in str(refused.value)
    assert "FORGE_ALLOW_FINGERPRINT_CHANGE" not in str(refused.value), "nothing is resumed"
    assert refused.value.title == "data rejected"


def test_the_same_data_may_lie_elsewhere(given: dict[str, Any], tmp_path: Path) -> None:
    before = begin(load_settings(**given), tmp_path / "run")
    moved = {**given, "dataset_uri": str(write_rows(tmp_path / "moved.jsonl", 60))}
    rows = held_out_rows(load_settings(**moved), tmp_path / "judge")
    assert [row.line for row in rows] == [row.line for row in before.evaluation_rows]

    write_rows(tmp_path / "moved.jsonl", 61)
    with pytest.raises(SettingsError, match="FORGE_DATASET_URI: names other bytes"):
        held_out_rows(load_settings(**moved), tmp_path / "judge")


def test_a_tokenizer_that_drops_other_rows_is_refused(
    given: dict[str, Any], tmp_path: Path
) -> None:
    settings = load_settings(**given)
    data = begin(settings, tmp_path / "run")
    storage = open_storage(settings.run_uri)
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    counts = {"rows.train": data.report.counts["train"] - 1, "rows.overlong_dropped": 1}
    ledger.set_fields(fingerprint=ledger.record.fingerprint | counts)
    with pytest.raises(SettingsError, match=r"rows\.overlong_dropped: was 1, is now 0"):
        held_out_rows(settings, tmp_path / "judge")
