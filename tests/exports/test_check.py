"""What exports would fail on is refused before anything is trained, all of it at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings
from job.errors import SettingsError
from job.exports import check, refuse_new
from job.ledger import Export, RunRecord
from job.model import look_at


def settings(model: Path, **values: Any) -> Settings:
    given = {"run_id": "r", "dataset_uri": ("/d",), "output_uri": "/o", "model": str(model)}
    return Settings(**(given | {"model_family": "smollm2"} | values))


def altered(model: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def checked(given: Settings, work_dir: Path) -> str:
    return check(given, look_at(given, work_dir), work_dir)


def test_a_sound_wish_is_named(tiny_model: Path, tmp_path: Path) -> None:
    assert checked(settings(tiny_model, export=("merged_16bit",)), tmp_path) == "merged_16bit"
    assert checked(settings(tiny_model), tmp_path) == "none wanted"


def test_4_bit_weights_need_a_base_in_16_bits(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = altered(tiny_model, tmp_path / "q", quantization_config={"load_in_4bit": True})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = settings(quantized, export=("merged_16bit",), push_to_hub="o/n")
    with pytest.raises(SettingsError) as refused:
        checked(given, tmp_path)
    assert [problem.where for problem in refused.value.problems] == [
        "FORGE_EXPORT",
        "FORGE_PUSH_TO_HUB",
    ]
    assert "FORGE_EXPORT_BASE_MODEL" in refused.value.problems[0].hint
    base = str(tiny_model)
    given = settings(quantized, export=("merged_16bit",), export_base_model=base)
    assert checked(given, tmp_path) == "merged_16bit"


def test_a_base_of_another_shape_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = altered(tiny_model, tmp_path / "other", num_hidden_layers=3)
    given = settings(tiny_model, export=("merged_16bit",), export_base_model=str(other))
    with pytest.raises(SettingsError, match="another shape") as refused:
        checked(given, tmp_path)
    assert refused.value.problems[0].where == "FORGE_EXPORT_BASE_MODEL"


def test_a_finished_run_is_not_said_to_have_what_it_lacks(tiny_model: Path) -> None:
    record = RunRecord(run_id="r")
    refuse_new(settings(tiny_model), record)
    given = settings(tiny_model, export=("merged_16bit",))
    with pytest.raises(SettingsError, match="was not asked for merged_16bit"):
        refuse_new(given, record)
    record.exports["merged_16bit"] = Export(place="m/", made_from="x", digest="d", bytes=1)
    refuse_new(given, record)
