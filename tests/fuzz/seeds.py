"""What the fuzzer starts from: good rows in every dialect, and the malformed corpus."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.dataset.conversations import CONVERSATIONS, HERMES_SYSTEM, TOOLS, written

MALFORMED: Final = Path(__file__).parents[1] / "dataset" / "malformed"
_LONGEST: Final = 64 * 1024
"""Bytes of a line of the corpus that is worth mutating."""

_SHIP: Final[dict[str, Any]] = {
    "name": "ship",
    "description": "Sends a parcel",
    "parameters": {
        "type": "object",
        "properties": {
            "to": {"$ref": "#/$defs/place"},
            "via": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 3},
            "code": {"type": "string", "pattern": "^[A-Z]{2}(?=[0-9])", "minLength": 3},
            "weight": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
            "speed": {"enum": ["slow", "fast", 1, None]},
            "note": {"type": "String", "nullable": True, "format": "date"},
        },
        "required": ["to", "code"],
        "additionalProperties": False,
        "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}}}},
    },
}
_ARGUMENTS: Final[dict[str, Any]] = {
    "to": {"city": "Zürich"},
    "via": [{"city": "東京"}, {}],
    "code": "AB1",
    "weight": 123456789012345678901234567890,
    "speed": None,
    "note": None,
}


def _turns(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"from": source, "value": value} for source, value in turns]


def _shipped(arguments: object) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "ship", "arguments": arguments}}
    return {
        "id": 7,
        "source": "mcp-forge",
        "scenario": "a parcel",
        "tool_name": "ship",
        "tools": [{"type": "function", "function": _SHIP}],
        "messages": [
            {"role": "user", "content": "Send it"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "name": "ship", "content": '{"ok": true}'},
            {"role": "assistant", "content": "Sent.", "reasoning_content": None},
        ],
    }


_CALL: Final = json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})
_SHAREGPT: Final[list[dict[str, Any]]] = [
    {"conversations": _turns(("human", "hello"), ("gpt", "Good day."))},
    {
        "conversations": _turns(
            ("system", HERMES_SYSTEM["content"]),
            ("human", "oslo"),
            ("gpt", written("weather", city="Oslo")),
            ("tool", "<tool_response>\nclear\n</tool_response>"),
            ("gpt", "Clear."),
        )
    },
    {
        "system": "Be brief.",
        "tools": json.dumps(TOOLS),
        "conversations": _turns(
            ("human", "oslo"),
            ("function_call", _CALL),
            ("observation", "clear"),
            ("gpt", "Clear."),
            ("human", "two"),
            ("gpt", "Let me see."),
            ("function_call", f"[{_CALL}, {_CALL}]"),
            ("observation", "rain"),
            ("observation", "snow"),
            ("gpt", "Rain, then snow."),
        ),
    },
    {
        "conversations": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "Hi."},
        ]
    },
]


@cache
def good_rows() -> tuple[dict[str, Any], ...]:
    """To be copied before they are changed."""
    shipped = [_shipped(_ARGUMENTS), _shipped(json.dumps(_ARGUMENTS))]
    return tuple(copy.deepcopy([*CONVERSATIONS.values(), *_SHAREGPT, *shipped]))


@cache
def malformed_lines() -> tuple[bytes, ...]:
    """Single lines of the corpus."""
    files = sorted(path for path in MALFORMED.rglob("*.jsonl") if path.is_file())
    lines = [line for path in files for line in path.read_bytes().split(b"\n") if line.strip()]
    return tuple(line for line in lines if len(line) <= _LONGEST)
