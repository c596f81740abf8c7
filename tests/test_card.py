"""The model card, as model hubs and people read it."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from job.card import CardFacts, model_card

EVALUATION: dict[str, Any] = {
    "rows": 40,
    "base": {"exact": {"rate": 0.1, "low": 0.04, "high": 0.231}},
    "adapter": {
        "exact": {"rate": 0.85, "low": 0.709, "high": 0.929},
        "refusal": {"rate": 1.0, "low": 0.9, "high": 1.0},
    },
}

FACTS = CardFacts(
    run_uri="s3://bucket/out/run-1",
    base_model="unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
    revision="0123abcd",
    step=60,
    settings={"lora_r": 16, "learning_rate": 2e-4},
    data={"train rows": 800, "file | name": "a\nb"},
    fingerprint={"seed": 3407, "versions.torch": "2.13.0"},
    evaluation=EVALUATION,
    attempts=2,
)


def metadata(card: str) -> dict[str, Any]:
    """As the hub's own client reads it."""
    return {name: value for name, value in vars(ModelCard(card).data).items() if value is not None}


def code(card: str) -> str:
    return card.partition("```python\n")[2].partition("```")[0]


def test_the_metadata_block() -> None:
    card = model_card(FACTS)
    assert card.startswith("---\n")
    assert metadata(card) == {
        "base_model": "unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "qlora", "tool-calling", "forge-job"],
    }


def test_what_it_tells() -> None:
    card = model_card(FACTS)
    for line in [
        "# LoRA adapter for unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        "Fine-tuned on tool-calling conversations by Forge Job, run `s3://bucket/out/run-1`:",
        "60 optimizer steps in 2 attempt(s).",
        "On 40 held-out assistant turns, greedy decoding, 95% intervals:",
        "| exactly right | 10.0% (4.0% to 23.1%) | 85.0% (70.9% to 92.9%) |",
        "| train rows | 800 |",
        "| lora_r | 16 |",
        "| learning_rate | 0.0002 |",
        "| seed | 3407 |",
        "| versions.torch | 2.13.0 |",
    ]:
        assert line in card.splitlines()


def test_a_measure_that_only_one_side_has_is_left_out() -> None:
    assert "right refusals" not in model_card(FACTS)


@pytest.mark.parametrize("evaluation", [None, {}])
def test_without_an_evaluation_it_claims_nothing(evaluation: dict[str, Any] | None) -> None:
    card = model_card(replace(FACTS, evaluation=evaluation))
    assert "No held-out tool calls were evaluated." in card
    assert "%" not in card.partition("## Data")[0]


def test_nothing_breaks_a_table() -> None:
    card = model_card(FACTS)
    assert "| file \\| name | a b |" in card.splitlines()


@pytest.mark.parametrize(
    ("base_model", "name", "arguments"),
    [
        ("owner/name", "owner/name", '"owner/name", revision="0123abcd"'),
        ("owner/name@main", "owner/name", '"owner/name", revision="0123abcd"'),
        ("owner/name@refs/pr/1", "owner/name", '"owner/name", revision="0123abcd"'),
        ("s3://models/qwen@2/", "s3://models/qwen@2/", '"s3://models/qwen@2/"'),
        ('/models/it\'s: a "model" #1', None, '"/models/it\'s: a \\"model\\" #1"'),
        ("1e3", "1e3", '"1e3", revision="0123abcd"'),
        ("on", "on", '"on", revision="0123abcd"'),
    ],
)
def test_the_base_model_is_named_so_that_it_can_be_loaded(
    base_model: str, name: str | None, arguments: str
) -> None:
    card = model_card(replace(FACTS, base_model=base_model))
    assert metadata(card)["base_model"] == (name or base_model)
    ast.parse(code(card))
    assert f"AutoModelForCausalLM.from_pretrained({arguments})" in code(card)


def test_the_code_is_python_that_names_what_exists() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(code(model_card(FACTS))))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"PeftModel", "AutoModelForCausalLM", "AutoTokenizer"}
