"""The real 93 MB model, as the demo prepares it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.demo.assets import fetch_model
from job.demo.model import prepare_model
from job.families import FAMILIES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_model(fetch_model(cache), tmp_path_factory.mktemp("model") / "smollm2")


def test_it_loads_as_any_model_does_and_answers(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    messages = [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        output = model.generate(**prompt, max_new_tokens=30, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
    assert "Paris" in answer
    # It stops by itself: the end of a turn is the end of the text.
    assert answer.endswith(FAMILIES["smollm2"].end_of_turn)


def test_the_template_treats_every_role_alike(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    roles = ("system", "user", "assistant", "tool", "assistant")
    messages = [{"role": role, "content": f"  text of {role}\n"} for role in roles]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    turns = [f"<|im_start|>{role}\n  text of {role}\n<|im_end|>\n" for role in roles]
    assert rendered == "".join(turns) + FAMILIES["smollm2"].response_marker


def test_its_files_are_those_of_an_ordinary_model(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|im_end|>"
    assert settings["pad_token"] not in (settings["eos_token"], None)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == config["eos_token_id"]


def test_a_prepared_model_is_left_as_it_is(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare_model(Path("no-such.gguf"), folder) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_failed_preparation_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "in" / "broken.gguf"
    broken.parent.mkdir()
    broken.write_bytes(b"no GGUF file, whatever its name says")
    with pytest.raises((ValueError, OSError)):
        prepare_model(broken, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []
