"""The model card (`README.md` of the adapter), in the form that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MEASURES = {
    "well_formed": "well-formed calls",
    "valid_arguments": "valid arguments",
    "right_tool": "right tool",
    "exact": "exactly right",
    "refusal": "right refusals",
}


@dataclass(frozen=True)
class CardFacts:
    """What the card tells."""

    run_uri: str
    base_model: str
    revision: str
    """The commit on a hub, or a hash over the model's files."""
    step: int
    settings: Mapping[str, Any]
    """Hyperparameters by name."""
    data: Mapping[str, Any]
    """Counts of rows and tokens by name."""
    fingerprint: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    attempts: int


def model_card(facts: CardFacts) -> str:
    """Markdown with the metadata block on top."""
    base_model, revision = hub_name(facts.base_model, facts.revision)
    pinned = f", revision={json.dumps(revision)}" if revision else ""
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(base_model)}",
            "library_name: peft",
            "pipeline_tag: text-generation",
            "tags: [lora, qlora, tool-calling, forge-job]",
            "---",
            "",
            f"# LoRA adapter for {base_model}",
            "",
            f"Fine-tuned on tool-calling conversations by Forge Job, run `{facts.run_uri}`:",
            f"{facts.step} optimizer steps in {facts.attempts} attempt(s).",
            "",
            *_results(facts.evaluation),
            "## Data",
            "",
            *_table("", "", facts.data),
            "## Hyperparameters",
            "",
            *_table("name", "value", facts.settings),
            "## Use",
            "",
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base_model)}{pinned})",
            'model = PeftModel.from_pretrained(base, "path/of/this/folder")',
            'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")',
            "```",
            "",
            "The chat template in this folder is the one that was trained with; serve with it.",
            "",
            "## Provenance",
            "",
            *_table("", "", facts.fingerprint),
        ]
    )


def hub_name(base_model: str, revision: str) -> tuple[str, str]:
    """What a hub calls the model, and the commit; a path or an S3 prefix has none."""
    if base_model.startswith(("/", "s3://")):
        return base_model, ""
    return base_model.partition("@")[0], revision


def _results(evaluation: Mapping[str, Any] | None) -> list[str]:
    if not evaluation:
        return ["## Results", "", "No held-out tool calls were evaluated.", ""]
    lines = [
        "## Results",
        "",
        f"On {evaluation['rows']} held-out assistant turns, greedy decoding, 95% intervals:",
        "",
        "| | base | adapter |",
        "|---|---|---|",
    ]
    for measure, label in _MEASURES.items():
        base, adapter = evaluation["base"].get(measure), evaluation["adapter"].get(measure)
        if base and adapter:
            lines.append(f"| {label} | {_interval(base)} | {_interval(adapter)} |")
    return [*lines, ""]


def _interval(result: Mapping[str, float]) -> str:
    return f"{result['rate']:.1%} ({result['low']:.1%} to {result['high']:.1%})"


def _table(left: str, right: str, values: Mapping[str, Any]) -> list[str]:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return [f"| {left} | {right} |", "|---|---|", *rows, ""]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
