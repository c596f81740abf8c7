"""Stand-ins for model folders: a small byte-level tokenizer and chat templates, made here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from job.dataset import DataFile, DataObject, Row

CHATML = (
    "{%- if tools or messages[0].role == 'system' %}"
    "{{- '<|im_start|>system\\n' }}"
    "{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}"
    "{%- if tools %}{{- '\\n<tools>' }}"
    "{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}"
    "{{- '\\n</tools>' }}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'tool' %}"
    "{{- '<|im_start|>user\\n<tool_response>\\n' + message.content"
    " + '\\n</tool_response><|im_end|>\\n' }}"
    "{%- elif message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content %}{{- message.content }}{%- endif %}"
    "{%- for call in message.tool_calls or [] %}"
    "{%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}"
    '{{- \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \''
    " + call.function.arguments | tojson + '}\\n</tool_call>' }}"
    "{%- endfor %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Tools in the system turn, calls and tool answers in Hermes' tags."""

PLAIN_CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Knows neither `tools` nor `tool_calls`."""

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}},
}

_SENTENCES = (
    "You are a helpful assistant. Call the tools that the request needs.",
    'What is the weather in Oslo? <tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>',
    "system user assistant tool <tool_response>\n{}\n</tool_response> It is sunny in the north.",
)


@cache
def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # As GPT-2's has it: offsets without the space before a word.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES * 5, trainer)
    return tokenizer.to_str()


def tokenizer() -> Tokenizer:
    """A fresh one, with nothing switched on."""
    return Tokenizer.from_str(_tokenizer_json())


def model_folder(folder: Path, template: str | None = CHATML, **config: Any) -> Path:
    """A folder as `save_pretrained` leaves it, without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_tokenizer_json())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True},
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def turn(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def row(*messages: dict[str, Any], tools: list[dict[str, Any]] | None = None, **meta: Any) -> Row:
    return Row("data.jsonl", 1, messages, tools, meta)


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """A call as `tool_calls` has it, once normalised."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def chat_row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row as it stands in the data."""
    return {"messages": [turn("user", question), turn("assistant", answer)], **more}


def data_file(path: Path, *rows: dict[str, Any] | bytes) -> DataFile:
    """Write rows (or lines as they are) and say that they were fetched."""
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return fetched(path)


def fetched(path: Path) -> DataFile:
    return DataFile(DataObject(str(path), path.stat().st_size, None, None, "0" * 64), path)
