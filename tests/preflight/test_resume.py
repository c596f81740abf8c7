"""`validate` of a run that has begun: the code its next attempt would end with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings, load_settings
from job.dataset import PrepareOptions, fetch, prepare
from job.ledger import FINISHED, Adapter, Checkpoint, Ledger, Status
from job.model import look_at
from job.preflight.checks import Check
from job.preflight.validate import Validation, validate
from job.stages.fingerprint import of_run
from job.storage import open_storage
from tests.dataset.standin import CHATML, model_folder
from tests.tiny import write_rows

CHECKPOINT = Checkpoint(
    step=8, attempt=1, key="checkpoints/00000008-001/", manifest_sha256="0" * 64, bytes=1
)
ADAPTER = Adapter(key="adapter/", manifest_sha256="0" * 64, bytes=1, step=8)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    write_rows(tmp_path / "rows.jsonl", 30)
    model = model_folder(tmp_path / "model")
    (model / "config.json").write_text('{"model_type": "llama"}')
    return {
        "run_id": "run-1",
        "dataset_uri": str(tmp_path / "rows.jsonl"),
        "output_uri": str(tmp_path / "out"),
        "model": str(model),
    }


def begin(
    settings: Settings, folder: Path, *, status: Status = "preempted", ranks: int = 1
) -> None:
    """A run of these settings that got as far as its first checkpoint, or has ended so."""
    files = fetch(settings.dataset_uri, folder / "data")
    model = look_at(settings, folder)
    options = PrepareOptions.from_settings(settings, model.position_limit)
    counts = prepare(files, model.chat, options, folder / "prepared").report.counts
    storage = open_storage(settings.run_uri)
    ledger = Ledger.claim(storage, settings.run_id, version="1", conditional_writes=True)
    template = model.chat.template_sha256
    ledger.set_fields(
        fingerprint=of_run(
            settings, files, model.revision, template, "unsloth", "bf16", counts, ranks
        ),
        effective_batch_size=settings.hyperparameters().effective_batch_size * ranks,
        checkpoints=[CHECKPOINT],
        adapter=ADAPTER if status in FINISHED else None,
    )
    ledger.close(status, 0, "")


def checked(**given: Any) -> tuple[int, dict[str, Check]]:
    found: Validation = validate(load_settings(**given))
    return found.exit_code, {made.name: made for made in found.checks}


def test_a_run_that_has_not_begun(given: dict[str, Any]) -> None:
    code, made = checked(**given)
    assert (code, made["record"].detail) == (0, "the run has not begun")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_goes_on_with_what_it_began_with(
    given: dict[str, Any], tmp_path: Path, ranks: int
) -> None:
    begin(load_settings(**given), tmp_path / "first", ranks=ranks)
    code, made = checked(**given)
    assert code == 0, made
    assert made["record"].detail == "the run is preempted, attempt 2 would go on at step 8"
    assert made["fingerprint"].result == "ok"


def test_other_settings_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first")
    code, made = checked(**given, lora_r=32)
    assert code == made["record"].exit_code == 78
    assert "lora.r: was 16, is now 32" in made["record"].detail
    assert made["rows"].result == "ok", "all else is checked too"
    assert checked(**given, lora_r=32, allow_fingerprint_change="lora")[0] == 78, "loads no more"
    accepted = {"learning_rate": 1e-5, "allow_fingerprint_change": "learning_rate"}
    assert checked(**given, **accepted)[0] == 0


def test_other_data_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first")
    write_rows(tmp_path / "rows.jsonl", 31)
    code, made = checked(**given)
    assert code == made["data set"].exit_code == 65
    assert "rows.jsonl: was changed" in made["data set"].detail
    assert checked(**given, allow_fingerprint_change="data")[0] == 0


def test_another_template_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first")
    model_folder(tmp_path / "model", CHATML + "{# of a later release #}")
    code, made = checked(**given)
    assert code == made["fingerprint"].exit_code == 78
    assert "template_sha256: was" in made["fingerprint"].detail


def test_a_finished_run_trains_nothing(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first", status="succeeded")
    (tmp_path / "rows.jsonl").unlink()  # nor does it need what it was trained on
    code, made = checked(**given)
    assert code == 0, made
    assert "the run is finished (succeeded)" in made["record"].detail
    assert "data set" not in made


@pytest.mark.parametrize("accepted", ["", "learning_rate"])
def test_a_finished_run_with_other_settings_is_refused(
    given: dict[str, Any], tmp_path: Path, accepted: str
) -> None:
    begin(load_settings(**given), tmp_path / "first", status="succeeded")
    code, made = checked(**given, learning_rate=1e-5, allow_fingerprint_change=accepted)
    assert code == 78
    assert "the run is finished" in made["record"].detail


def test_a_finished_run_makes_no_new_exports(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first", status="succeeded")
    code, made = checked(**given, export="merged_16bit")
    assert code == 78
    assert "was not asked for merged_16bit" in made["record"].detail


def test_a_gate_that_was_failed_stays_so(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first", status="gate_failed")
    assert checked(**given)[0] == 80


def test_a_gate_that_says_otherwise_since_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    begin(load_settings(**given), tmp_path / "first", status="succeeded")
    storage = open_storage(f"{given['output_uri']}/{given['run_id']}")
    record = json.loads(storage.read("run.json")[0])
    record["results"] = {"gate": "not set", "evaluation": None}
    storage.write("run.json", json.dumps(record).encode())
    assert checked(**given)[0] == 0
    code, made = checked(**given, gate_min_exact=0.9)
    assert code == made["record"].exit_code == 78


@pytest.mark.parametrize("text", ["{", '{"run_id": 1}', "[]"])
def test_a_record_that_is_none(given: dict[str, Any], tmp_path: Path, text: str) -> None:
    (tmp_path / "out" / "run-1").mkdir(parents=True)
    (tmp_path / "out" / "run-1" / "run.json").write_text(text)
    code, made = checked(**given)
    assert code == made["record"].exit_code == 70
