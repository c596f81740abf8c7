"""One message in the OpenAI form: from parsed JSON to what a chat template may see of it."""

from __future__ import annotations

from json import loads as exact_json
from typing import Any, Final

import orjson

from job.dataset.rows.hermes import Malformed, ToolCall, is_inexact, is_simple, read_call, too_deep
from job.dataset.rows.repeats import may_repeat, repeated_keys
from job.dataset.rows.row import Message, Problems
from job.dataset.rows.tools import ONCE
from job.dataset.rows.words import exactly, kind

ROLES: Final = ("system", "user", "assistant", "tool")
_RENAMED: Final = {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "function": "tool",
    "ipython": "tool",
}
_ROLES_HINT: Final = "one of " + ", ".join(ROLES)
_CALL_HINT: Final = 'write {"function": {"name": …, "arguments": {…}}}'

_TEXT_KEYS: Final = ("tool_call_id", "name", "reasoning_content")
"""Beside `role`, `content` and `tool_calls`, all that a chat template may see of a message."""

_REFUSED: Final = {
    "function_call": "the old form: write 'tool_calls'",
    "audio": "only text is trained",
    "images": "only text is trained",
    "videos": "only text is trained",
    "audios": "only text is trained",
}
"""Keys without which a message would mean something else."""
_UNREAD: Final = ("reasoning", "thinking")
UNREAD: Final[Message] = {"role": "", "content": None}
"""Stands for a message that can't be read."""


def read_message(raw: object, path: str, found: Problems) -> Message | None:
    """A message with no keys but the known ones; `None` if that can't be told."""
    if not isinstance(raw, dict):
        found.add(path, f"is {kind(raw)}, not an object", 'write {"role": …, "content": …}')
        return None
    role = raw.get("role")
    if not isinstance(role, str) or role not in ROLES:
        _bad_role(raw, path, found)
        return None
    message: Message = {"role": role, "content": raw.get("content")}
    calls = raw.get("tool_calls")
    if calls is None or calls == []:
        if type(message["content"]) is not str:
            # Of a call in the old form, the form is what is told.
            old = bool(raw.get("function_call"))
            message["content"] = read_text(raw, "content", path, found, optional=old)
    else:
        if role != "assistant":
            found.add(f"{path}.tool_calls", f"stands in a {role} turn", "only assistants call")
        message["content"] = read_text(raw, "content", path, found, optional=True)
        read = _tool_calls(calls, f"{path}.tool_calls", found)
        if len(read) < (len(calls) if isinstance(calls, list) else 1):
            # Without one of its calls, remarks on those that answer them would be noise.
            return None
        message["tool_calls"] = read
    if not raw.keys() <= _READ:
        _other_keys(raw, message, path, found)
    return message


_READ: Final = frozenset(("role", "content", "tool_calls"))
_KNOWN: Final = _READ.union(_TEXT_KEYS)


def _other_keys(raw: dict[str, Any], message: Message, path: str, found: Problems) -> None:
    for key in _TEXT_KEYS:
        text = raw.get(key)
        if isinstance(text, str):
            message[key] = text
        elif text is not None:
            found.add(f"{path}.{key}", f"is {kind(text)}, not a string", "write a string")
    if not raw.keys() <= _KNOWN:
        for key, item in raw.items():
            refuse_loss(key, item, message["role"], path, found)


def read_text(
    raw: dict[str, Any], key: str, path: str, found: Problems, *, optional: bool = False
) -> str | None:
    """The text of a turn. `optional`: it may be missing, as beside calls."""
    text = raw.get(key)
    if isinstance(text, str):
        return text or (None if optional else text)
    if text is None and optional:
        return None
    if text is None:
        found.add(f"{path}.{key}", "is null" if key in raw else "is missing", "write a string")
    else:
        hint = "write a string"
        hint = "write a tool's answer as a string of JSON" if isinstance(text, dict) else hint
        hint = "join the parts into one string" if isinstance(text, list) else hint
        found.add(f"{path}.{key}", f"is {kind(text)}, not a string", hint)
    return None


def refuse_loss(key: str, value: object, role: str, path: str, found: Problems) -> None:
    """A key that the model doesn't see, or the trainer not heed, but that changes the meaning."""
    if key in _REFUSED and value:
        found.add(f"{path}.{key}", "would be lost", _REFUSED[key])
    elif role != "assistant":
        return
    elif key == "weight" and value is not None and value in (0, False):
        hint = "end the conversation before it, or take the key out to train it"
        found.add(f"{path}.weight", "is 0, but every assistant turn is trained", hint)
    elif key in _UNREAD and isinstance(value, str) and value.strip():
        found.warn(f"{path}.{key}", "is not trained", "write it as 'reasoning_content'")


def _tool_calls(calls: object, path: str, found: Problems) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        found.add(path, f"is {kind(calls)}, not a list", "write a list of calls")
        return []
    read = [read_call_of(call, f"{path}[{n}]", ".function", found) for n, call in enumerate(calls)]
    return [call for call in read if call is not None]


def read_call_of(call: object, path: str, inner: str, found: Problems) -> dict[str, Any] | None:
    """A call with its arguments as an object, which is what chat templates expect.

    `inner` is what leads from the call's path to its name and arguments. `None` if it can't be
    read.
    """
    if not isinstance(call, dict):
        found.add(path, f"is {kind(call)}, not an object", _CALL_HINT)
        return None
    function = call.get("function", call)
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        arguments = _from_string(function["arguments"], f"{path}{inner}.arguments", found)
        if arguments is None:
            return None
        read = read_call({"name": function.get("name"), "arguments": arguments})
    else:
        read = read_call(function)
        if isinstance(read, ToolCall) and not is_simple(read.arguments):
            found.inexact |= is_inexact(read.arguments)
    if isinstance(read, Malformed):
        found.add(path, read.reason, _CALL_HINT)
        return None
    normal: dict[str, Any] = {
        "type": "function",
        "function": {"name": read.name, "arguments": read.arguments},
    }
    given = call.get("id")
    if isinstance(given, str):
        normal["id"] = given
    elif given is not None:
        found.add(f"{path}.id", f"is {kind(given)}, not a string", "write a string")
    return normal


def _from_string(text: str, path: str, found: Problems) -> object:
    """Arguments given as a string of JSON; `None` if they can't be read."""
    # An empty string is what OpenAI's API gives for a call without arguments.
    if not text or text.isspace():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        found.add(path, f"are not JSON: {error.msg}", "write an object, or a string of JSON")
        return None
    if not isinstance(value, dict) or (not is_simple(value) and too_deep(value)):
        return value if value is not None else []  # refused for what it is
    if may_repeat(text, value):
        for where, key in repeated_keys(text):
            found.add(path + where, f"the key '{key}' stands twice in one object", ONCE)
    if not is_simple(value) and is_inexact(value):
        return exact_json(text)
    return value


def _bad_role(raw: dict[str, Any], path: str, found: Problems) -> None:
    role = raw.get("role")
    if "role" not in raw:
        found.add(f"{path}.role", "is missing", _ROLES_HINT)
    elif not isinstance(role, str):
        found.add(f"{path}.role", f"is {kind(role)}, not a string", _ROLES_HINT)
    else:
        known = _RENAMED.get(role, next((name for name in ROLES if name == role.lower()), None))
        hint = f"write '{known}'" if known else _ROLES_HINT
        found.add(f"{path}.role", f"'{exactly(role, 40)}' is not a role", hint)
