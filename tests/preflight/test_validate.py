"""`validate` in a pod that is not the one that trains."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings
from job.errors import SettingsError
from job.exports import check
from job.model import look_at
from job.preflight.validate import validate
from job.stages.workdir import work_dir
from tests.dataset.standin_families import family_folder
from tests.evaluation.test_reading import LLAMA, UNKNOWN, calling
from tests.tiny import write_rows

CITIES = [f"city {number}" for number in range(30)]


@pytest.fixture
def given(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "run_id": "r",
        "dataset_uri": str(write_rows(tmp_path / "rows.jsonl", 30)),
        "output_uri": str(tmp_path / "out"),
        "model": str(tiny_model),
        "model_family": "smollm2",
    }


def test_room_for_exports_is_the_training_pods_affair(
    given: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "immense"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))
    settings = Settings(**given | {"model": str(model), "export": "merged_16bit"})
    validation = validate(settings)
    made = {check.name: check for check in validation.checks}
    assert validation.exit_code == 0, validation
    assert made["exports"].result == "warning"
    assert "FORGE_WORK_DIR: " in made["exports"].detail
    assert "the pod that trains needs it" in made["exports"].detail
    with pytest.raises(SettingsError, match="GB are free"):
        check(settings, look_at(settings, tmp_path), tmp_path)


def test_what_the_exports_are_made_of_is_refused_here_too(
    given: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "quantized"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    changed = config | {"quantization_config": {"load_in_4bit": True}}
    (model / "config.json").write_text(json.dumps(changed))
    settings = Settings(**given | {"model": str(model), "export": "merged_16bit"})
    assert validate(settings).exit_code == 78


@pytest.mark.parametrize("there", [True, False])
def test_it_works_on_the_work_volume(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    volume = tmp_path / "scratch" / "forge"
    if there:
        volume.mkdir(parents=True)
    seen = list[Path]()

    def look(settings: Settings, folder: Path, *rest: Any) -> Any:
        seen.append(folder)
        return look_at(settings, folder, *rest)

    monkeypatch.setattr("job.preflight.validate.look_at", look)
    assert validate(Settings(**given, work_dir=volume)).exit_code == 0
    assert [folder.parent for folder in seen] == [volume]
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("place", ["{}/file", "{}/file/x", "/proc/scratch"])
def test_a_work_volume_that_can_be_nowhere_ends_the_run_and_this(
    given: dict[str, Any], tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    settings = Settings(**given, work_dir=Path(place.format(tmp_path)))
    with pytest.raises(SettingsError) as refused, work_dir(settings):
        pass
    validation = validate(settings)
    [made] = [check for check in validation.checks if check.name == "volume"]
    assert made.exit_code == validation.exit_code == refused.value.exit_code
    assert f"FORGE_WORK_DIR: {settings.work_dir} can't be written: " in made.detail
    assert validation.report is not None, "all else is looked at too"


def test_a_work_volume_that_only_the_node_has_is_no_fault_here(
    given: dict[str, Any], volume: Callable[[str], Path]
) -> None:
    root = volume("ro")  # as a laptop's is for most of its users
    validation = validate(Settings(**given, work_dir=root / "scratch"))
    [made] = [check for check in validation.checks if check.name == "volume"]
    assert (made.result, validation.exit_code) == ("warning", 0)
    assert "the pod that trains needs it, not this one" in made.detail


@pytest.mark.parametrize("gate", [{}, {"gate_min_exact": 0.5}])
@pytest.mark.parametrize("template", [None, UNKNOWN])
def test_calls_that_could_not_be_judged_are_told_before_any_gpu(
    given: dict[str, Any], tmp_path: Path, template: str | None, gate: dict[str, Any]
) -> None:
    folder = family_folder(tmp_path / "llama", LLAMA, template)
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 1024}')
    rows = [{"tools": row.tools, "messages": row.messages} for row in map(calling, CITIES)]
    data = tmp_path / "calls.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(
        **given | {"dataset_uri": str(data), "model": str(folder), "model_family": "llama-3"},
        **gate,
    )
    validation = validate(settings)
    [answers] = [made for made in validation.checks if made.name == "answers"]
    result = "ok" if template is None else "failed" if gate else "warning"
    assert answers.result == result, answers
    assert validation.exit_code == (78 if result == "failed" else 0), validation
    assert ("CALL weather WITH" in answers.detail) is (template is not None)
    assert ("FORGE_GATE_MIN_EXACT" in answers.detail) is (result == "failed")
