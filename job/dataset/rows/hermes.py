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
_NEARLY: Final = re.compile(r"<\s*+/?\s*+(?:tool|function)[ _-]?calls?\b[^<>]*>", re.IGNORECASE)
_THINKING: Final = re.compile(r"<think>.*?</think>", re.DOTALL)
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""What may be one half of a character beyond 16 bits."""
_LARGEST: Final = 2.0**63
"""Floats from here on may have been whole numbers that orjson doesn't hold."""


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
    return [
        block if isinstance(block, Malformed) else parse_call(block) for block in call_blocks(text)
    ]


def call_blocks(text: str) -> list[str | Malformed]:
    """What stands between the tags of each `<tool_call>` block, in order."""
    if "tool_call>" not in text:
        return []
    if "<think>" in text:
        text = _without_thoughts(text)
    if text.count("tool_call>") == 2:
        first, last = text.find("<tool_call>"), text.find("</tool_call>")
        if 0 <= first < last:
            return [text[first + len("<tool_call>") : last]]
    blocks: list[str | Malformed] = []
    start: int | None = None
    for tag in _TAG.finditer(text):
        opens = tag.group() == "<tool_call>"
        if opens and start is None:
            start = tag.end()
        elif start is None:
            blocks.append(Malformed("has a </tool_call> that was not opened"))
        elif not opens:  # a server ends the call at the first closing tag, whatever is before it
            blocks.append(text[start : tag.start()])
            start = None
    if start is not None:
        blocks.append(Malformed("has a <tool_call> that is not closed"))
    return blocks


def _without_thoughts(text: str) -> str:
    """Searched up to the last end alone: each beginning after it would be followed to the end of
    the text, which takes the square of its length."""
    before, end, rest = text.rpartition("</think>")
    return _THINKING.sub("", before + end) + rest


def nearly_a_tag(text: str) -> str | None:
    """The first thing that looks like a tag of a call and that no server takes for one."""
    if "<" not in text:
        return None
    found = (tag[0] for tag in _NEARLY.finditer(text))
    return next((tag for tag in found if _TAG.fullmatch(tag) is None), None)


def parse_call(block: str) -> ToolCall | Malformed:
    """The call in one block."""
    try:
        value = orjson.loads(block)
    except orjson.JSONDecodeError as error:
        nested = "has a <tool_call> inside another one, and " if "<tool_call>" in block else ""
        return Malformed(f"{nested}is not JSON: {error.msg}{_python_hint(block)}")
    call = read_call(value)
    if isinstance(call, ToolCall) and not is_simple(call.arguments) and is_inexact(call.arguments):
        # orjson makes a float of a whole number over 64 bits; servers keep it.
        try:
            return ToolCall(call.name, json.loads(block)["arguments"])
        except RecursionError:
            return Malformed("is nested too deeply")
    return call


def read_call(value: object) -> ToolCall | Malformed:
    """A call from its parsed JSON: an object with a string `name` and an object `arguments`."""
    if not isinstance(value, dict):
        return Malformed("is not a JSON object")
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not name:
        return Malformed("has no 'name' that is a string")
    if not isinstance(arguments, dict):
        return Malformed(f"has 'arguments' for '{name}' that are not a JSON object")
    if not is_simple(arguments) and too_deep(arguments):
        return Malformed(f"has 'arguments' for '{name}' that nest deeper than {MAX_DEPTH} levels")
    return ToolCall(name, arguments)


def declared_tools(text: str) -> list[Any]:
    """The JSON values in the `<tools>` blocks of a system turn: one list, or one tool after
    another.

    Raises `ValueError` with the reason if a block is not JSON. An empty block is prose ("within
    <tools></tools> tags").
    """
    return [tool for block in tool_blocks(text) for tool in tools_of(block)]


def tool_blocks(text: str) -> list[str]:
    """What stands between the tags of each `<tools>` block that isn't empty.

    Prose may name the tags ("between <tools> and </tools>"): what begins as no JSON does is left
    out where another block does.
    """
    blocks, end = [], 0
    while (start := text.find("<tools>", end)) >= 0:
        if (end := text.find("</tools>", start)) < 0:
            break
        block = text[start + len("<tools>") : end].strip()
        if not block.startswith(_JSON_BEGINS):
            # "in <tools> tags: <tools>…": the last opening is the one that is meant.
            block = block.rpartition("<tools>")[2].strip()
        if block:
            blocks.append(block)
    return [block for block in blocks if block.startswith(_JSON_BEGINS)] or blocks


_JSON_BEGINS: Final = ("{", "[")


def tools_of(block: str, decoder: json.JSONDecoder | None = None) -> list[Any]:
    """The tools in one block, read by `decoder` if one is given. Raises `ValueError`."""
    values = _one_after_another(block, decoder) if decoder else _json_values(block)
    if list in map(type, values):
        return [tool for value in values for tool in (value if type(value) is list else [value])]
    return values


def is_simple(arguments: dict[str, Any]) -> bool:
    """Whether all values are scalars that were read exactly: the common case, told quickly."""
    for value in arguments.values():
        kind = type(value)
        if kind is str or kind is int or kind is bool or value is None:
            continue
        if kind is not float or not -_LARGEST < value < _LARGEST:
            return False
    return True


def is_inexact(value: object) -> bool:
    """Whether there is a float in it that may have been a whole number of more than 64 bits."""
    level: list[Any] = [value]
    while level:
        if any(isinstance(item, float) and abs(item) >= _LARGEST for item in level):
            return True
        level = [child for item in level for child in _children(item)]
    return False


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


def _python_hint(block: str) -> str:
    return ", it looks like Python" if re.match(r"\s*\{\s*'", block) else ""


def _json_values(text: str) -> list[Any]:
    """One value after another. One alone, or one a line, is read the fast way."""
    lines = text.splitlines() if "\n{" in text else [text]
    try:
        return [orjson.loads(line) for line in lines if line]
    except orjson.JSONDecodeError:
        return _one_after_another(text, _STRICT)


def _one_after_another(text: str, decoder: json.JSONDecoder) -> list[Any]:
    values, position = [], 0
    while position < len(text):
        try:
            value, position = decoded(text, position, decoder)
        except ValueError as error:
            raise ValueError(f"is not JSON: {error}{_python_hint(text)}") from None
        values.append(value)
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
    return values


def decoded(text: str, start: int, decoder: json.JSONDecoder) -> tuple[Any, int]:
    """The JSON value that begins there, and where it ends.

    Raises `ValueError`, also for what Python alone takes: half a character, which is no text and
    which JSON Schema and files can't hold.
    """
    try:
        value, end = decoder.raw_decode(text, start)
        if _HALF.search(text, start, end):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate)") from None
    return value, end


def no_constant(name: str) -> None:
    """Python's reader takes NaN and Infinity for numbers. Raises `ValueError`."""
    raise ValueError(f"JSON has no {name}")


_STRICT: Final = json.JSONDecoder(parse_constant=no_constant)
