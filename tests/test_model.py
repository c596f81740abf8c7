"""The model before its weights: family templates, what pins it, and whose code may run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings
from job.dataset import ChatFormat
from job.errors import SettingsError
from job.families import FAMILIES
from job.ledger import Checkpoint, RunRecord
from job.model import BaseModel, look_at, other_family, recorded_revision
from tests.dataset.conversations import as_read, user
from tests.dataset.standin_families import FAMILIES as STANDINS
from tests.dataset.standin_families import chat_format, family_folder
from tests.tiny import tiny_tokenizer

R1 = FAMILIES["deepseek-r1"]
OWN = {"qwen-2.5": "qwen2.5", "deepseek-r1": "deepseek-r1", "llama-3": "llama-3.1"}


def settings(**values: Any) -> Settings:
    given = {"run_id": "run-1", "dataset_uri": ("/rows.jsonl",), "output_uri": "/out"}
    return Settings(**(given | values))


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    folder = family_folder(tmp_path_factory.mktemp("r1"), STANDINS["deepseek-r1"])
    return ChatFormat.load(folder, R1.chat_template())


@pytest.mark.parametrize("family", ["qwen-2.5", "llama-3", "smollm2"])
def test_a_family_describes_its_models(family: str) -> None:
    chat = chat_format(OWN.get(family, family))
    assert other_family(settings(model_family=family), chat) == ""


def test_the_family_of_r1_describes_its_own_template(r1: ChatFormat) -> None:
    assert other_family(settings(model_family="deepseek-r1"), r1) == ""


def test_another_familys_template_is_followed_and_named() -> None:
    note = other_family(settings(model="/models/other"), chat_format("llama-3.1"))
    assert "FORGE_MODEL_FAMILY is qwen-2.5, but /models/other has another family's" in note


# -- weights that are quantized already ----------------------------------------------------------


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "fp8"},
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
    ],
    ids=lambda q: q["quant_method"],
)
def test_other_quantizations_are_refused_without_the_weights(
    quantization: dict[str, Any], tmp_path: Path
) -> None:
    folder = family_folder(tmp_path / "model", STANDINS["qwen2.5"])
    looked_at = settings(model=str(folder))
    config = {"model_type": "qwen2"}
    for served in ({}, {"quantization_config": {"load_in_4bit": True}}):
        (folder / "config.json").write_text(json.dumps(config | served))
        look_at(looked_at, tmp_path / "cache")
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    with pytest.raises(SettingsError, match=f"quantized with {quantization['quant_method']}, not"):
        look_at(looked_at, tmp_path / "cache")


# -- DeepSeek-R1 ----------------------------------------------------------------------------------


def trained(chat: ChatFormat, name: str) -> list[str]:
    rendered = chat.render(as_read()[name])
    return [rendered.text[first:last] for first, last in rendered.spans]


def test_its_own_template_is_replaced(r1: ChatFormat) -> None:
    assert r1.replacement == R1.chat_template()
    assert chat_format("deepseek-r1").replacement is None, "where no other one is offered"


def test_one_that_shows_everything_stays(tmp_path: Path) -> None:
    folder = family_folder(tmp_path, STANDINS["deepseek-r1"], R1.chat_template())
    assert ChatFormat.load(folder, "{{ raise_exception('not asked') }}").replacement is None


@pytest.mark.parametrize("name", sorted(as_read()))
def test_whatever_it_renders_is_trained_to_the_end_of_each_turn(r1: ChatFormat, name: str) -> None:
    """Every row of the tests' collection: none is refused that its own template would show."""
    for answer in trained(r1, name):
        assert answer.endswith("<｜end▁of▁sentence｜>")


def test_thoughts_are_trained(r1: ChatFormat) -> None:
    [answer] = trained(r1, "thinks")
    assert answer.startswith("<think>\n")
    assert trained(r1, "O reasons apart")[0].startswith("<think>\n")
    assert not r1.prompt([user("hello")], None).endswith("<think>\n"), "the model decides"


def test_tools_and_calls_are_in_hermes_form(r1: ChatFormat) -> None:
    row = as_read()["O parallel calls"]
    text = r1.render(row).text
    assert "<tools>\n" in text
    assert all(tool["function"]["name"] in text for tool in row.tools or ())
    assert trained(r1, "O parallel calls")[0].count("<tool_call>\n") == 2
    assert "<｜User｜><tool_response>\n" in text


# -- what pins it ---------------------------------------------------------------------------------


def record(**fingerprint: Any) -> RunRecord:
    checkpoint = Checkpoint(step=1, attempt=1, key="k/", manifest_sha256="0", bytes=1)
    return RunRecord(run_id="run-1", fingerprint=fingerprint, checkpoints=[checkpoint])


def test_a_run_goes_on_with_the_commit_that_it_began_with() -> None:
    begun = record(model="owner/name", model_revision="0123")
    assert recorded_revision(begun, settings(model="owner/name")) == "0123"
    assert recorded_revision(begun, settings(model="owner/name@v2")) is None
    assert recorded_revision(record(), settings(model="owner/name")) is None
    begun.checkpoints = []
    assert recorded_revision(begun, settings(model="owner/name")) is None


# -- the end of a turn ----------------------------------------------------------------------------


def with_end(folder: Path, eos_token: str) -> tuple[BaseModel, Any]:
    """A model whose template ends turns with <|im_end|>, and its tokenizer."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = eos_token
    tokenizer.save_pretrained(folder)
    source: Any = None
    return BaseModel(source, ChatFormat.load(folder), {}, None), tokenizer


def test_a_base_models_tokenizer_learns_where_a_turn_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server stops at the tokenizer's end of a text, and so does the evaluation."""
    model, tokenizer = with_end(tmp_path, "<|endoftext|>")
    model.adopt_end(tokenizer, [tokenizer.eos_token_id])
    assert tokenizer.eos_token == "<|im_end|>"
    assert "ends a turn with <|im_end|>, at which the model would not stop" in caplog.text


@pytest.mark.parametrize(
    ("eos_token", "also"), [("<|im_end|>", ""), ("<|endoftext|>", "<|im_end|>")]
)
def test_one_that_knows_keeps_its_own(tmp_path: Path, eos_token: str, also: str) -> None:
    """As Llama 3's, whose generation_config.json names the end of a turn beside that of a text."""
    model, tokenizer = with_end(tmp_path, eos_token)
    model.adopt_end(tokenizer, [tokenizer.convert_tokens_to_ids(also)] if also else [])
    assert tokenizer.eos_token == eos_token
