"""The model card, as model hubs and people read it."""

from __future__ import annotations

import ast
import json
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from job.card import CardFacts, merged_card, model_card
from job.card.markdown import plain
from job.families.licence import Licence

EVALUATION: dict[str, Any] = {
    "rows": 40,
    "base": {"exact": {"rate": 0.1, "low": 0.04, "high": 0.231}},
    "adapter": {
        "exact": {"rate": 0.85, "low": 0.709, "high": 0.929},
        "refusal": {"rate": 1.0, "low": 0.9, "high": 1.0},
    },
}

DATA: dict[str, Any] = {
    "files": [{"uri": "s3://data/a|b.jsonl", "rows": 1000, "size": 4096, "sha256": "ab" * 32}],
    "counts": {"train": 800, "evaluation": 200},
    "tokens": 123456,
    "supervised_ratio": 0.125,
}

FACTS = CardFacts(
    run_uri="s3://bucket/out/run-1",
    base_model="unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
    revision="0123abcd",
    step=60,
    settings={"lora_r": 16, "learning_rate": 2e-4},
    data=DATA,
    fingerprint={"seed": 3407, "versions.torch": "2.13.0"},
    evaluation=EVALUATION,
    attempts=2,
    licence=Licence("apache-2.0"),
)


def metadata(card: str) -> dict[str, Any]:
    """As the hub's own client reads it."""
    return {name: value for name, value in vars(ModelCard(card).data).items() if value is not None}


def code(card: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def words(command: str) -> list[str]:
    """As a shell reads it."""
    return shlex.split(command.replace("\\\n", " "))


def test_the_metadata_block() -> None:
    card = model_card(FACTS)
    assert card.startswith("---\n")
    found = metadata(card)
    results = found.pop("eval_results")
    assert found == {
        "base_model": "unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "apache-2.0",
        "model_name": "run-1",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "qlora", "tool-calling", "forge-job"],
    }
    assert [(r.metric_type, r.metric_value) for r in results] == [("exact", 0.85), ("refusal", 1.0)]
    assert results[0].metric_args == {"low": 0.709, "high": 0.929, "confidence": 0.95}


def test_the_card_of_merged_weights_claims_no_results_and_says_where_they_are() -> None:
    card = merged_card(replace(FACTS, tool_call_parser="llama3_json"))
    assert metadata(card) == {
        "base_model": "unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "apache-2.0",
        "model_name": "run-1",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "qlora", "tool-calling", "forge-job"],
    }
    assert "](../adapter/README.md)" in card
    [program] = code(card)
    ast.parse(program)
    serve, request = (words(each) for each in code(card, "bash"))
    assert serve[:3] == ["vllm", "serve", "./merged"]
    assert serve[serve.index("--tool-call-parser") + 1] == "llama3_json"
    body = json.loads(request[request.index("--data") + 1])
    assert body["model"] == serve[serve.index("--served-model-name") + 1] == "run-1"


def test_what_it_tells() -> None:
    card = model_card(FACTS)
    for line in [
        "# LoRA adapter for unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        "Fine-tuned on tool-calling conversations by Forge Job, run `s3://bucket/out/run-1`:",
        "60 optimizer steps in 2 attempt(s).",
        "On 40 held-out assistant turns, greedy decoding, 95% intervals:",
        "| exactly right | 10.0% (4.0% to 23.1%) | 85.0% (70.9% to 92.9%) |",
        "Promotion gate: not set.",
        "| rows trained on | 800 |",
        "| rows held out | 200 |",
        "| tokens of the training rows | 123,456 |",
        "| of these trained on | 12.5% |",
        f"| s3://data/a\\|b.jsonl | 1000 | 4096 | {'ab' * 32} |",
        "| lora_r | 16 |",
        "| learning_rate | 0.0002 |",
        "apache-2.0, as the base model's card says.",
        "| seed | 3407 |",
        "| versions.torch | 2.13.0 |",
    ]:
        assert line in card.splitlines()


def test_a_measure_that_only_one_side_has_is_left_out() -> None:
    assert "right refusal |" not in model_card(FACTS)


@pytest.mark.parametrize("evaluation", [None, {}])
def test_without_an_evaluation_it_claims_nothing(evaluation: dict[str, Any] | None) -> None:
    card = model_card(replace(FACTS, evaluation=evaluation))
    assert "No held-out tool calls were evaluated." in card
    assert "eval_results" not in metadata(card)
    assert "%" not in card.partition("## Use")[0]


@pytest.mark.parametrize(
    ("low", "high", "doubt"), [(0.6, 0.9, False), (-0.1, 0.2, True), (-0.5, -0.1, False)]
)
def test_a_gain_that_may_be_chance_is_called_so(low: float, high: float, doubt: bool) -> None:
    gain = {"exact": {"rate": (low + high) / 2, "low": low, "high": high}}
    card = model_card(replace(FACTS, evaluation={**EVALUATION, "gain": gain}))
    [line] = [line for line in card.splitlines() if line.startswith("Gain in exactly right")]
    assert f"({low:+.1%} to {high:+.1%})" in line
    assert ("it may be chance" in line) is doubt


def test_groups_are_bounded() -> None:
    tools = {f"tool_{i}": {"of": 100 - i, "base": 1, "adapter": 2} for i in range(30)}
    scenarios = {"parallel": {"of": 9, "base": 0, "adapter": 8}}
    groups = {"tools": tools, "scenarios": scenarios}
    lines = model_card(replace(FACTS, evaluation=EVALUATION | groups)).splitlines()
    assert "| tool_19 | 1 | 2 | 81 |" in lines
    assert "| tool_20 | 1 | 2 | 80 |" not in lines
    assert "… and 10 more in the run's report." in lines
    assert "| parallel | 0 | 8 | 9 |" in lines


def test_it_says_that_time_kept_turns_from_being_judged() -> None:
    cut = {**EVALUATION, "rows": 40, "turns": 120, "stopped_by": "seconds"}
    card = model_card(replace(FACTS, evaluation=cut))
    assert "On 40 of 120 held-out assistant turns (`FORGE_EVAL_MAX_SECONDS` was over" in card
    nothing = {**cut, "rows": 0, "base": {}, "adapter": {}}
    card = model_card(replace(FACTS, evaluation=nothing))
    assert "Nothing was judged, of 120 held-out assistant turns: time was over" in card
    assert "On 0" not in card
    assert "| base |" not in card
    assert "eval_results" not in metadata(card)


def test_it_says_which_turns_can_not_be_judged() -> None:
    left_out = {"turns": 120, "why": "an <odd> form"}
    nothing = {"rows": 0, "turns": 120, "base": {}, "adapter": {}, "not_judged": left_out}
    card = model_card(replace(FACTS, evaluation=nothing))
    assert "Nothing was judged, of 120 held-out assistant turns." in card
    assert "Not judged: 120 turns; an &lt;odd&gt; form." in card


def test_the_verdict_of_the_gate_is_told() -> None:
    card = model_card(replace(FACTS, gate="exactly right 10.0%, FORGE_GATE_MIN_EXACT is 90.0%"))
    assert "Promotion gate: exactly right 10.0%, FORGE_GATE_MIN_EXACT is 90.0%." in card


def test_the_curve_is_shown_where_there_is_one() -> None:
    assert "training-curve.svg" not in model_card(FACTS)
    assert "](training-curve.svg)" in model_card(replace(FACTS, curve=b"<svg/>"))


def test_a_licence_is_never_made_up() -> None:
    card = model_card(replace(FACTS, licence=None))
    assert "license" not in metadata(card)
    assert "look it up before you share" in card
    named = Licence("other", "qwen-research", "https://x.example/LICENSE", note="Ask.")
    card = model_card(replace(FACTS, licence=named))
    assert metadata(card)["license_name"] == "qwen-research"
    assert metadata(card)["license_link"] == "https://x.example/LICENSE"
    assert "\nAsk.\n" in card


HOSTILE = [
    "a | b",
    "a\nb: c\n---\n# heading",
    "<script>alert(1)</script>",
    "[click](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "`code` ``more``",
    '"\\ }, license: mit, {',
    "- !!python/object/apply:os.system [id]",
    "*bold* _em_ ~gone~ $math$",
    "&lt;b&gt;",
    "www.evil.example",
    "it's $(id) `id`",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_others_have_named_stays_text(hostile: str) -> None:
    ordinary = model_card(replace(FACTS, evaluation={**EVALUATION, "tools": _tool("ordinary")}))
    facts = replace(
        FACTS,
        run_uri=f"s3://bucket/{hostile}",
        settings={hostile: hostile, "lora_r": 16},
        data={**DATA, "files": [{**DATA["files"][0], "uri": hostile}]},
        evaluation={**EVALUATION, "tools": _tool(hostile)},
        gate=hostile,
        fingerprint={hostile: hostile},
        licence=Licence("other", hostile, hostile, note=hostile),
    )
    card = model_card(facts)
    found = metadata(card)
    assert (found["license"], found["license_name"]) == ("other", hostile)
    assert found["library_name"] == "peft"
    body = _without_code(card)
    assert _headings(body) == _headings(_without_code(ordinary))
    assert not re.search(r"<[A-Za-z/]|(?<!\\)\]\(|https?://|www\.", body)


def _tool(name: str) -> dict[str, Any]:
    return {name: {"of": 3, "base": 1, "adapter": 2}}


def _without_code(card: str) -> str:
    """The text below the metadata, code blocks and code spans taken out (CommonMark 4.5, 6.1)."""
    body = card.split("\n---\n", 1)[1]
    body = re.sub(r"^```\w+\n.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", body)


def _headings(body: str) -> list[str]:
    return [line for line in body.splitlines() if line.startswith("#")]


@pytest.mark.parametrize(
    ("base_model", "hub_id", "arguments"),
    [
        ("owner/name", "owner/name", '"owner/name", revision="0123abcd"'),
        ("owner/name@main", "owner/name", '"owner/name", revision="0123abcd"'),
        ("owner/name@refs/pr/1", "owner/name", '"owner/name", revision="0123abcd"'),
        ("s3://models/qwen@2/", None, '"s3://models/qwen@2/"'),
        ('/models/it\'s: a "model" #1', None, '"/models/it\'s: a \\"model\\" #1"'),
    ],
)
def test_the_base_model_is_named_so_that_it_can_be_loaded(
    base_model: str, hub_id: str | None, arguments: str
) -> None:
    """Hubs refuse a card whose `base_model` is none of theirs."""
    card = model_card(replace(FACTS, base_model=base_model))
    assert metadata(card).get("base_model") == hub_id
    assert metadata(card).get("base_model_relation") == ("adapter" if hub_id else None)
    [program] = code(card)
    ast.parse(program)
    assert f"AutoModelForCausalLM.from_pretrained({arguments})" in program
    assert words(code(card, "bash")[0])[:3] == ["vllm", "serve", hub_id or base_model]


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("owner/16bit", "owner/16bit"),
        ("owner/16bit@v1", "owner/16bit"),
        ("/models/llama@16bit", "/models/llama@16bit"),
        ("s3://models/qwen@16bit", "s3://models/qwen@16bit"),
    ],
)
def test_merged_weights_name_the_base_that_they_were_merged_into(base: str, said: str) -> None:
    facts = FACTS.merged_into(base)
    assert f"# {plain(said)}, fine-tuned" in merged_card(facts)
    assert facts.revision == ("v1" if base.endswith("@v1") else "")


def test_the_code_is_python_that_names_what_exists() -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(code(model_card(FACTS))[0]))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == {"PeftModel", "AutoModelForCausalLM", "AutoTokenizer"}


@pytest.mark.parametrize(("rank", "served"), [(4, "8"), (16, "16"), (17, "32"), (129, "256")])
def test_vllm_is_given_a_rank_that_it_takes(rank: int, served: str) -> None:
    given = words(code(model_card(replace(FACTS, settings={"lora_r": rank})), "bash")[0])
    assert given[given.index("--max-lora-rank") + 1] == served
    assert given[given.index("--lora-modules") + 1] == "run-1=./adapter"
    assert given[given.index("--tool-call-parser") + 1] == "hermes"
    assert "--reasoning-parser" not in given


def test_a_family_that_thinks_is_served_so() -> None:
    facts = replace(FACTS, reasoning_parser="deepseek_r1", tool_call_parser="llama3_json")
    command = code(model_card(facts), "bash")[0]
    assert "--reasoning-parser deepseek_r1" in command
    assert "--tool-call-parser llama3_json" in command


def test_the_request_is_json_for_the_served_name() -> None:
    command = words(code(model_card(FACTS), "bash")[1])
    body = json.loads(command[command.index("--data") + 1])
    assert body["model"] == "run-1"
    assert body["tools"][0]["function"]["name"] == "get_weather"
