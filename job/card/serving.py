"""How to use the adapter: commands that name the very files of this folder."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, Final

from job.card.facts import CardFacts, hub_name
from job.model_name import ModelName

_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `--max-lora-rank` takes (vllm/config/lora.py; newer ones 1 too); the default, 16,
refuses more."""
_FOLDER: Final = "./adapter"
_MERGED: Final = "./merged"
_REQUEST: Final[dict[str, Any]] = {
    "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather of a city",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                },
            },
        }
    ],
    "tool_choice": "auto",
    "temperature": 0,
}


def serving(facts: CardFacts) -> list[str]:
    return [
        "## Use",
        "",
        f"This folder is taken to lie in `{_FOLDER}`.",
        "Serve with its `chat_template.jinja`: it is the one that was trained with.",
        "",
        *_vllm(facts),
        *_transformers(facts),
        "### Check what you have",
        "",
        "```bash",
        f"(cd {_FOLDER} && sha256sum -c SHA256SUMS)",
        "```",
        "",
    ]


def merged_serving(facts: CardFacts) -> list[str]:
    flags = [
        f"vllm serve {_MERGED}",
        f"--served-model-name {shlex.quote(facts.name)}",
        f"--chat-template {_MERGED}/chat_template.jinja",
        *_calls(facts),
    ]
    return [
        "## Use",
        "",
        f"This folder is taken to lie in `{_MERGED}`.",
        "",
        *_served(facts, flags),
        "### transformers",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{_MERGED}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{_MERGED}")',
        "```",
        "",
    ]


def _vllm(facts: CardFacts) -> list[str]:
    base_model, revision = hub_name(facts.base_model, facts.revision)
    name = shlex.quote(facts.name)
    flags = [
        f"vllm serve {shlex.quote(base_model)}",
        *([f"--revision {shlex.quote(revision)}"] if revision else []),
        "--enable-lora",
        f"--lora-modules {name}={_FOLDER}",
        *_rank(facts),
        f"--chat-template {_FOLDER}/chat_template.jinja",
        *_calls(facts),
    ]
    return _served(facts, flags, _mirrored(base_model))


def _calls(facts: CardFacts) -> list[str]:
    return [
        "--enable-auto-tool-choice",
        f"--tool-call-parser {facts.tool_call_parser}",
        *([f"--reasoning-parser {facts.reasoning_parser}"] if facts.reasoning_parser else []),
    ]


def _served(facts: CardFacts, flags: list[str], note: Sequence[str] = ()) -> list[str]:
    request = json.dumps({"model": facts.name, **_REQUEST}, indent=1)
    return [
        "### vLLM",
        "",
        "```bash",
        " \\\n  ".join(flags),
        "```",
        "",
        *note,
        "A request with tools; the answer has them in `choices[0].message.tool_calls`:",
        "",
        "```bash",
        "curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\",
        f"  --data {shlex.quote(request)}",
        "```",
        "",
    ]


def _rank(facts: CardFacts) -> list[str]:
    wanted = facts.settings.get("lora_r")
    rank = next((rank for rank in _RANKS if wanted and rank >= wanted), None)
    return [f"--max-lora-rank {rank}"] if rank else []


def _mirrored(base_model: str) -> list[str]:
    if ModelName.parse(base_model).kind != "mirror":
        return []
    return ["The base model lies in a bucket: bring it to a folder and name that instead.", ""]


def _transformers(facts: CardFacts) -> list[str]:
    base_model, revision = hub_name(facts.base_model, facts.revision)
    pinned = f", revision={json.dumps(revision)}" if revision else ""
    return [
        "### transformers and PEFT",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({json.dumps(base_model)}{pinned})",
        f'model = PeftModel.from_pretrained(base, "{_FOLDER}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{_FOLDER}")',
        "```",
        "",
    ]
