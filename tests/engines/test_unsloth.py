"""The Unsloth engine where there is no accelerator: what it refuses, sets, and imports."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from job.engines import UnslothEngine, choose_engine, prepare_environment
from job.engines.unsloth import EXCUSED, from_pretrained_arguments
from job.errors import SettingsError
from job.profiles import PROFILES

CACHES = (
    "UNSLOTH_COMPILE_LOCATION",
    "UNSLOTH_MEGA_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "HF_DATASETS_CACHE",
    "HF_MODULES_CACHE",
    "MPLCONFIGDIR",
)


@pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is not None, reason="unsloth is installed here"
)
def test_without_unsloth_the_setting_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FORGE_ENGINE: unsloth is not installed") as refused:
        UnslothEngine().load(tmp_path, PROFILES["fast_dev"])
    assert refused.value.exit_code == 78
    assert "FORGE_ENGINE=reference" in str(refused.value)


def test_the_reference_engine_is_taken_wherever_it_is_named() -> None:
    assert choose_engine("reference").name == "reference"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing is refused")
def test_unsloth_without_a_gpu_is_refused() -> None:
    with pytest.raises(SettingsError, match="FORGE_ENGINE: unsloth needs a GPU"):
        choose_engine("unsloth")
    assert choose_engine("auto").name == "reference"


def test_caches_go_to_the_work_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*CACHES, "UNSLOTH_DISABLE_STATISTICS", "UNSLOTH_DATASET_NUM_PROC"):
        monkeypatch.setenv(variable, "")  # so that it is put back after the test
        monkeypatch.delenv(variable)
    prepare_environment(tmp_path)
    folders = [Path(os.environ[variable]) for variable in CACHES]
    assert len(set(folders)) == len(CACHES)
    assert all(tmp_path in folder.parents for folder in folders)
    assert os.environ["UNSLOTH_DISABLE_STATISTICS"] == "1"
    assert os.environ["UNSLOTH_DATASET_NUM_PROC"] == "0"


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {name: f"/mine/{name}" for name in CACHES} | {"UNSLOTH_DISABLE_STATISTICS": "0"}
    mine["UNSLOTH_DATASET_NUM_PROC"] = "4"
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    prepare_environment(tmp_path)
    assert dict(os.environ) == before


def test_importing_the_engines_brings_in_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "datasets", "peft", "trl", "bitsandbytes", "boto3", "httpx"]
    code = "import json, sys, job.engines; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    modules = json.loads(done.stdout)
    assert "job.engines.reference" in modules
    assert [name for name in heavy if name in modules] == []


def a_trainer(*, padding_free: bool = True) -> SimpleNamespace:
    """What Unsloth's own makes of our arguments."""
    return SimpleNamespace(
        args=SimpleNamespace(bf16_full_eval=True, fp16_full_eval=False),
        data_collator=SimpleNamespace(padding_free=padding_free),
    )


def test_an_evaluation_does_not_round_the_trained_weights() -> None:
    trainer = a_trainer()
    UnslothEngine().adopt(trainer)
    assert not trainer.args.bf16_full_eval


@pytest.mark.parametrize("kept", [True, False])
def test_padding_free_batches_are_not_lost_in_silence(
    kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = a_trainer(padding_free=kept)
    UnslothEngine().adopt(trainer)
    assert ("padding-free batches off" in caplog.text) != kept


@pytest.mark.parametrize(("asked", "given"), [(2048, 1024), (1024, 1024), (512, 512)])
def test_no_more_tokens_than_the_model_has_positions(
    tmp_path: Path, asked: int, given: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Unsloth would stretch the positions, without a word."""
    (tmp_path / "config.json").write_text('{"model_type": "x", "max_position_embeddings": 1024}')
    hyperparameters = replace(PROFILES["fast_dev"], max_seq_length=asked)
    assert from_pretrained_arguments(tmp_path, hyperparameters)["max_seq_length"] == given
    assert ("FORGE_MAX_SEQ_LENGTH" in caplog.text) == (asked != given)


def test_the_whole_model_goes_to_the_card_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to Unsloth, what doesn't fit is planned onto other cards, or onto the host."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    given = from_pretrained_arguments(tmp_path, PROFILES["fast_dev"])
    assert given["device_map"] == {"": "cuda:1"}


def test_the_models_configuration_can_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsloth puts a torch.dtype into it, with which TensorBoard was left out of every run."""
    model: Any = torch.nn.Linear(2, 2)
    model.config = LlamaConfig(dtype=torch.bfloat16)
    noted = {"bnb_4bit_compute_dtype": model.config.dtype, "load_in_4bit": True}
    model.config.update({"quantization_config": noted})
    model.get_base_model = lambda: model
    unsloth = SimpleNamespace(
        from_pretrained=lambda **_: (model, None), get_peft_model=lambda model, **_: model
    )
    monkeypatch.setattr("job.engines.unsloth._import_first", lambda: unsloth)
    monkeypatch.setenv(EXCUSED, "")  # so that it is put back after the test
    loaded = UnslothEngine().load(tmp_path, PROFILES["fast_dev"])
    written = json.loads(loaded.model.config.to_json_string())["quantization_config"]
    assert written == {"bnb_4bit_compute_dtype": "bfloat16", "load_in_4bit": True}
