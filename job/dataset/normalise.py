"""The shape of a row: from parsed JSON to messages in one form, with what doesn't fit.

Hermes and OpenAI rows differ in where calls and tools are written; both come out as the same
messages. What the order of turns and the calls mean is checked after this, in `check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from job.dataset.hermes import Malformed, read_call, too_deep
from job.dataset.row import Message, Problems

ROLES: Final = ("system", "user", "assistant", "tool")
_RENAMED: Final = {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "function": "tool",
    "ipython": "tool",
}
_TEXT_KEYS: Final = ("tool_call_id", "name", "reasoning_content")
"""Beside `role`, `content` and `tool_calls`, all that a chat template may see of a message."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A row whose parts were read. A message that couldn't be is `None`."""

    messages: tuple[Message | None, ...]
    tools: list[dict[str, Any]] | None
    meta: dict[str, Any]


def normalise(value: object, problems: Problems) -> Draft:
    """Read the parsed JSON of one line. Everything wrong with its shape goes into `problems`."""
    if not isinstance(value, dict):
        problems.add("", f"is {kind(value)}, not a JSON object", 'write {"messages": […]}')
        return Draft((), None, {})
    raw = value.get("messages")
    messages: tuple[Message | None, ...] = ()
    if "messages" not in value:
        found = ", ".join(f"'{key}'" for key in list(value)[:8]) or "nothing"
        problems.add("messages", "is missing", f"the row has {found}")
    elif not isinstance(raw, list):
        problems.add("messages", f"is {kind(raw)}, not a list")
    elif not raw:
        problems.add("messages", "is empty")
    else:
        messages = tuple(_message(item, f"messages[{i}]", problems) for i, item in enumerate(raw))
    meta = {key: item for key, item in value.items() if key not in ("messages", "tools")}
    return Draft(messages, _tools(value.get("tools"), problems), meta)


def tool_name(tool: object) -> str | None:
    """The name a declared tool goes by, in the OpenAI form or bare."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) and name else None


def kind(value: object) -> str:
    """What JSON calls it, for an error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _message(raw: object, path: str, problems: Problems) -> Message | None:
    if not isinstance(raw, dict):
        problems.add(path, f"is {kind(raw)}, not an object")
        return None
    role = raw.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _bad_role(raw, path, problems)
        return None
    message: Message = {"role": role, "content": None}
    calls = raw.get("tool_calls")
    if calls:
        if role != "assistant":
            problems.add(f"{path}.tool_calls", f"stands in a {role} turn", "only assistants call")
        message["tool_calls"] = list(_calls(calls, f"{path}.tool_calls", problems))
    message["content"] = _content(raw, path, problems, optional=bool(calls))
    for key in _TEXT_KEYS:
        text = raw.get(key)
        if isinstance(text, str):
            _no_nul(text, f"{path}.{key}", problems)
            message[key] = text
        elif text is not None:
            problems.add(f"{path}.{key}", f"is {kind(text)}, not a string")
    return message


def _bad_role(raw: dict[str, Any], path: str, problems: Problems) -> None:
    role = raw.get("role")
    if "role" not in raw:
        problems.add(f"{path}.role", "is missing", "one of " + ", ".join(ROLES))
    elif not isinstance(role, str):
        problems.add(f"{path}.role", f"is {kind(role)}, not a string", "one of " + ", ".join(ROLES))
    else:
        known = _RENAMED.get(role, next((name for name in ROLES if name == role.lower()), None))
        hint = f"write '{known}'" if known else "one of " + ", ".join(ROLES)
        problems.add(f"{path}.role", f"'{role[:40]}' is not a role", hint)


def _content(raw: dict[str, Any], path: str, problems: Problems, *, optional: bool) -> str | None:
    content = raw.get("content")
    if isinstance(content, str):
        _no_nul(content, f"{path}.content", problems)
        return content or (None if optional else content)
    if content is None and optional:
        return None
    if content is None:
        problems.add(f"{path}.content", "is null" if "content" in raw else "is missing")
    else:
        hint = "write a tool's answer as a string of JSON" if isinstance(content, dict) else ""
        hint = "join the parts into one string" if isinstance(content, list) else hint
        problems.add(f"{path}.content", f"is {kind(content)}, not a string", hint)
    return None


def _no_nul(text: str, path: str, problems: Problems) -> None:
    if "\0" in text:
        problems.add(path, "holds a NUL character", "the text was damaged on its way here")


def _calls(calls: object, path: str, problems: Problems) -> Iterator[dict[str, Any]]:
    """OpenAI calls with their arguments as objects, which is what chat templates expect."""
    if not isinstance(calls, list):
        problems.add(path, f"is {kind(calls)}, not a list")
        return
    for i, call in enumerate(calls):
        where = f"{path}[{i}]"
        if not isinstance(call, dict):
            problems.add(where, f"is {kind(call)}, not an object")
            continue
        function = call.get("function", call)
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            function = function | {"arguments": _parsed(function["arguments"], where, problems)}
            if function["arguments"] is None:
                continue
        found = read_call(function)
        if isinstance(found, Malformed):
            problems.add(where, found.reason, 'write {"function": {"name": …, "arguments": {…}}}')
            continue
        normal: dict[str, Any] = {
            "type": "function",
            "function": {"name": found.name, "arguments": found.arguments},
        }
        if isinstance(call.get("id"), str):
            normal["id"] = call["id"]
        elif call.get("id") is not None:
            problems.add(f"{where}.id", f"is {kind(call['id'])}, not a string")
        yield normal


def _parsed(arguments: str, where: str, problems: Problems) -> object:
    try:
        # An empty string is what OpenAI's API gives for a call without arguments.
        return orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError as error:
        problems.add(f"{where}.function.arguments", f"are not JSON: {error.msg}")
        return None


def _tools(raw: object, problems: Problems) -> list[dict[str, Any]] | None:
    if isinstance(raw, str):
        try:
            raw = orjson.loads(raw) if raw.strip() else None
        except orjson.JSONDecodeError as error:
            problems.add("tools", f"is a string that is not JSON: {error.msg}")
            return None
    if raw is None or raw == []:
        return None
    if not isinstance(raw, list):
        problems.add("tools", f"is {kind(raw)}, not a list")
        return None
    return list(_declared(raw, problems)) or None


def _declared(raw: list[Any], problems: Problems) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for i, tool in enumerate(raw):
        name = tool_name(tool)
        if name is None:
            problems.add(
                f"tools[{i}]",
                "has no name that is a string",
                'write {"type": "function", "function": {"name": …, "parameters": {…}}}',
            )
        elif too_deep(tool):
            problems.add(f"tools[{i}]", f"'{name}' is nested too deeply")
        elif name in seen:
            problems.add(f"tools[{i}]", f"'{name}' is declared twice")
        else:
            seen.add(name)
            # Serving hands tools to the template in this form, so training does too.
            yield tool if "function" in tool else {"type": "function", "function": tool}
