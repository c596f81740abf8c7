"""The Hermes dialect: tools and tool calls written as JSON between tags in the text of a turn.

The reading is that of serving (vLLM's `hermes` parser): what is not taken for a call here would
not be called there. One reader for the checks of the data and for the score of an answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

MAX_DEPTH: Final = 64
"""How deep JSON may nest in tools and arguments; deeper breaks templates and parsers."""

_TAG: Final = re.compile(r"</?tool_call>")
_THINKING: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_TOOLS: Final = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. Equality is Python's: `evaluation.calls` compares as JSON does."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that was meant as a call and can't be read as one."""

    reason: str


def parse_tool_calls(text: str) -> list[ToolCall | Malformed]:
    """Every `<tool_call>` block in the text of an assistant turn, in order.

    What stands inside `<think>` is no call. A tag without its partner is `Malformed`.
    """
    text = _THINKING.sub("", text)
    calls: list[ToolCall | Malformed] = []
    start: int | None = None
    for tag in _TAG.finditer(text):
        opens = tag.group() == "<tool_call>"
        if opens and start is None:
            start = tag.end()
        elif opens:
            calls.append(Malformed("<tool_call> opens inside another one"))
            start = tag.end()
        elif start is None:
            calls.append(Malformed("</tool_call> closes what was not opened"))
        else:
            calls.append(_call(text[start : tag.start()]))
            start = None
    if start is not None:
        calls.append(Malformed("<tool_call> is not closed"))
    return calls


def read_call(value: object) -> ToolCall | Malformed:
    """A call from its parsed JSON: an object with a string `name` and an object `arguments`."""
    if not isinstance(value, dict):
        return Malformed("is not a JSON object")
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not name:
        return Malformed("has no 'name' that is a string")
    if not isinstance(arguments, dict):
        return Malformed(f"the 'arguments' of '{name}' are not a JSON object")
    if too_deep(arguments):
        return Malformed(f"the 'arguments' of '{name}' nest deeper than {MAX_DEPTH} levels")
    return ToolCall(name, arguments)


def declared_tools(text: str) -> list[Any]:
    """The JSON values in the `<tools>` blocks of a system turn: one list, or one tool after
    another.

    Raises `ValueError` with the reason if a block is not JSON. An empty block is prose ("within
    <tools></tools> tags").
    """
    tools: list[Any] = []
    for block in _TOOLS.findall(text):
        for value in _json_values(block.strip()):
            tools += value if isinstance(value, list) else [value]
    return tools


def too_deep(value: object, limit: int = MAX_DEPTH) -> bool:
    """Whether lists and objects nest deeper than `limit`. Not recursive: it is fed from outside."""
    level: list[Any] = [value]
    for _ in range(limit + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _call(block: str) -> ToolCall | Malformed:
    try:
        value = orjson.loads(block)
    except orjson.JSONDecodeError as error:
        return Malformed(f"is not JSON: {error.msg}{_python_hint(block)}")
    return read_call(value)


def _python_hint(block: str) -> str:
    return ", it looks like Python" if re.match(r"\s*\{\s*'", block) else ""


def _json_values(text: str) -> list[Any]:
    """One value after another. One alone, or one a line, is read the fast way."""
    for parts in ([text] if text else [], text.splitlines()):
        try:
            return [orjson.loads(part) for part in parts if part]
        except orjson.JSONDecodeError:
            continue
    decoder, values, position = json.JSONDecoder(), [], 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"is not JSON: {error}{_python_hint(text)}") from None
        values.append(value)
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
    return values
