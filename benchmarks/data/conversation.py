"""A conversation out of the leaderboard, and how it is written in either dialect."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from job.demo.hermes import SYSTEM_PROMPT, Unusable, tool_call
from job.demo.schema import UnknownType, json_schema

_OF_OTHER_LANGUAGES: Final = {
    "String": "string",
    "Boolean": "boolean",
    "long": "integer",
    "double": "float",
    "char": "string",
    "Array": "array",
    "ArrayList": "array",
    "HashMap": "dict",
}
"""Types of the Java and JavaScript categories, in the words of the others."""


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    text: str | None
    """`None` where there are calls."""
    calls: tuple[dict[str, Any], ...] = ()
    """`name` and `arguments` of each."""


@dataclass(frozen=True)
class Conversation:
    """In the leaderboard's own words."""

    id: str
    category: str
    functions: tuple[dict[str, Any], ...]
    """As the leaderboard declares them, Python's type names and all."""
    turns: tuple[Turn, ...]


def openai_row(conversation: Conversation) -> dict[str, Any]:
    """With `tools` as the leaderboard declares them, and `tool_calls`."""
    row: dict[str, Any] = _meta(conversation)
    if conversation.functions:
        row["tools"] = [_declared(function) for function in conversation.functions]
    row["messages"] = [_openai_turn(turn) for turn in conversation.turns]
    return row


def hermes_row(conversation: Conversation) -> dict[str, Any]:
    """With `<tools>` in JSON Schema's words, and `<tool_call>`. Raises `Unusable`."""
    turns = list(conversation.turns)
    system = [SYSTEM_PROMPT]
    if turns and turns[0].role == "system":
        system.append(turns.pop(0).text or "")
    if conversation.functions:
        try:
            tools = [_declared(_converted(function)) for function in conversation.functions]
        except UnknownType as error:
            raise Unusable("unknown type in a schema", str(error)) from None
        lines = [json.dumps(tool, ensure_ascii=False) for tool in tools]
        system += ["<tools>", *lines, "</tools>"]
    messages = [{"role": "system", "content": "\n".join(system)}]
    messages += [{"role": turn.role, "content": _written(turn)} for turn in turns]
    return _meta(conversation) | {"messages": messages}


def _meta(conversation: Conversation) -> dict[str, Any]:
    calls = [call for turn in conversation.turns for call in turn.calls]
    return {
        "id": conversation.id,
        "source": f"bfcl_v4/{conversation.category}",
        "tool_name": calls[0]["name"] if calls else None,
    }


def _declared(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": function}


def _openai_turn(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.text}
    if turn.calls:
        message["tool_calls"] = [
            {
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": json.dumps(call["arguments"], ensure_ascii=False),
                },
            }
            for call in turn.calls
        ]
    return message


def _written(turn: Turn) -> str:
    return turn.text if turn.text is not None else "\n".join(map(tool_call, turn.calls))


def _converted(function: dict[str, Any]) -> dict[str, Any]:
    """In JSON Schema, without what the function gives back. Raises `UnknownType`."""
    return {
        "name": function["name"],
        "description": function["description"],
        "parameters": json_schema(_renamed(function["parameters"])),
    }


def _renamed(schema: dict[str, Any]) -> dict[str, Any]:
    renamed = dict(schema)
    if "type" in schema:
        renamed["type"] = _OF_OTHER_LANGUAGES.get(schema["type"], schema["type"])
    if "properties" in schema:
        properties = schema["properties"].items()
        renamed["properties"] = {name: _renamed(inner) for name, inner in properties}
    if "items" in schema:
        renamed["items"] = _renamed(schema["items"])
    return renamed
