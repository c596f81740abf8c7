"""The forms in which models write tool calls, and a reader of each.

Which one is trained is the chat template's choice (`job.evaluation.reading` finds out). Each reader
is that of serving, vLLM's parser of the same name: what is not taken for a call here would not be
called there. What was meant as a call and can't be read is `Malformed`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

from job.dataset.rows.hermes import (
    Malformed,
    ToolCall,
    decoded,
    no_constant,
    parse_tool_calls,
    read_call,
)


class Form(StrEnum):
    """Named as vLLM's `--tool-call-parser`."""

    HERMES = "hermes"
    """`<tool_call>` tags around `{"name": …, "arguments": …}`."""
    MISTRAL = "mistral"
    """`[TOOL_CALLS]` before a list of such objects, or before `name{…}` for each call."""
    LLAMA = "llama3_json"
    """Bare `{"name": …, "parameters": …}`, maybe after `<|python_tag|>`."""


HERMES_ONLY: Final = (Form.HERMES,)

_PYTHON: Final = "<|python_tag|>"
_CALLS: Final = "[TOOL_CALLS]"
_NAMED: Final = re.compile(r'\s*\{\s*"(?:name|type|parameters|arguments)"\s*:')
"""Broken JSON that begins like this was meant as a call."""
_NAME_FIRST: Final = re.compile(r"([\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")
"""As Mistral's newer tokenizers write a call; its arguments come next."""
_DECODER: Final = json.JSONDecoder(parse_constant=no_constant)


def read_calls(text: str, forms: Sequence[Form]) -> list[ToolCall | Malformed]:
    """The calls in an answer, by the first of `forms` that finds any."""
    found = (_READERS[form](text) for form in forms)
    return next((calls for calls in found if calls), [])


def _llama(text: str) -> list[ToolCall | Malformed]:
    """One such object among other text makes a call; a second thing in braces that is none, and
    the server takes nothing for a call."""
    calls: list[ToolCall | Malformed] = []
    others: list[ToolCall | Malformed] = []
    for value in _objects(text):
        if isinstance(value, Malformed):
            calls.append(value)
        elif "name" in value and ("arguments" in value or "parameters" in value):
            calls.append(_as_call(value))
        else:
            others.append(Malformed("has no 'name' with 'parameters'"))
    if calls or _PYTHON in text:
        return [*calls, *others] or [Malformed("has <|python_tag|> and no call")]
    return []


def _as_call(value: dict[str, Any]) -> ToolCall | Malformed:
    arguments = value["arguments"] if "arguments" in value else value["parameters"]
    return read_call({"name": value["name"], "arguments": arguments})


def _objects(text: str) -> Iterator[dict[str, Any] | Malformed]:
    """Every JSON object in a text, but for those in another one."""
    end = 0
    while (start := text.find("{", end)) >= 0:
        value, end = _decoded(text, start)
        if isinstance(value, dict):
            yield value
        elif _NAMED.match(text, start):
            yield Malformed("is not JSON")


def _mistral(text: str) -> list[ToolCall | Malformed]:
    return [call for part in text.split(_CALLS)[1:] for call in _after_the_tag(part.strip())]


def _after_the_tag(part: str) -> list[ToolCall | Malformed]:
    """The calls of one `[TOOL_CALLS]`."""
    if named := _NAME_FIRST.match(part):
        value, end = _decoded(part, named.end())
        values: list[Any] = [{"name": named[1], "arguments": value}]
    else:
        value, end = _decoded(part, 0)
        values = value if isinstance(value, list) else [value]
    if part[end:].strip() or not values:
        return [Malformed("has [TOOL_CALLS] and no JSON of calls after it")]
    return [read_call(value) for value in values]


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins there, and where it ends; None, and one character, for none."""
    try:
        return decoded(text, start, _DECODER)
    except ValueError:
        return None, start + 1


_READERS: Final[dict[Form, Callable[[str], list[ToolCall | Malformed]]]] = {
    Form.HERMES: parse_tool_calls,
    Form.MISTRAL: _mistral,
    Form.LLAMA: _llama,
}
