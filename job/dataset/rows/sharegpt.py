"""Rows with `conversations` instead of `messages`: ShareGPT's form, and what grew from it.

Turns are `from` and `value` (or `role` and `content`). Hermes' public data has its tags in the
values; LLaMA-Factory writes calls as turns of their own, which here join the text before them.
"""

from __future__ import annotations

from json import loads as exact_json
from typing import Any, Final

import orjson

from job.dataset.rows.draft import MAX_TURNS, Draft
from job.dataset.rows.hermes import MAX_DEPTH, is_inexact, too_deep
from job.dataset.rows.message import read_call_of, read_message, read_text, refuse_loss
from job.dataset.rows.repeats import may_repeat, repeated_keys
from job.dataset.rows.row import Message, Problems
from job.dataset.rows.tools import ONCE
from job.dataset.rows.words import exactly, kind

_CALL: Final = "function_call"
_ROLES: Final = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    _CALL: "assistant",
    "observation": "tool",
    "tool": "tool",
}
_RENAMED: Final = {
    **dict.fromkeys(("function-call", "tool_call", "functioncall"), _CALL),
    **dict.fromkeys(("function-response", "function_response", "tool_response"), "observation"),
    **dict.fromkeys(("function", "ipython"), "observation"),
    **dict.fromkeys(("chatgpt", "bot", "model", "bard", "bing"), "gpt"),
}
_TURN_HINT: Final = 'write {"from": …, "value": …}'
_CALL_HINT: Final = 'write {"name": …, "arguments": {…}} or a list of such, as a string of JSON'


class ConversationPlaces:
    """Paths in a row with `conversations`, whose turns are not one message each."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        """Where each message begins."""
        self.texts: list[str] = []
        self.calls: list[list[tuple[str, str]]] = []
        """Of each message: where each call stands, and where its arguments do."""

    def turn(self, index: int) -> str:
        return self.turns[index]

    def text(self, index: int) -> str:
        return self.texts[index]

    def call(self, index: int, call: int) -> str:
        return self.calls[index][call][0]

    def arguments(self, index: int, call: int) -> str:
        return self.calls[index][call][1]


class Conversation:
    """Puts messages together turn by turn."""

    def __init__(self, found: Problems) -> None:
        self.messages: list[Message] = []
        self.places = ConversationPlaces()
        self.whole = True
        self._found = found
        self._joinable = False
        """The last message may still be joined by calls."""

    def system(self, text: str) -> None:
        """A system turn from the row's key `system`."""
        self._append({"role": "system", "content": text}, "system", "system")

    def add(self, raw: object, path: str) -> None:
        """One turn."""
        if not isinstance(raw, dict):
            self._found.add(path, f"is {kind(raw)}, not an object", _TURN_HINT)
            self.whole = False
        elif "from" not in raw and "role" in raw:
            self._openai(raw, path)
        else:
            self._turn(raw, path)

    def _openai(self, raw: dict[str, Any], path: str) -> None:
        message = read_message(raw, path, self._found)
        if message is None:
            self.whole = False
            return
        self._append(message, path, f"{path}.content")
        calls = message.get("tool_calls", ())
        paths = [f"{path}.tool_calls[{n}]" for n in range(len(calls))]
        self.places.calls[-1] = [(where, f"{where}.function.arguments") for where in paths]

    def _turn(self, raw: dict[str, Any], path: str) -> None:
        source = raw.get("from")
        role = _ROLES.get(source) if isinstance(source, str) else None
        if role is None:
            _bad_source(raw, path, self._found)
            self.whole = False
            return
        for key, item in raw.items():
            refuse_loss(key, item, role, path, self._found)
        if source == _CALL:
            self._calls(raw.get("value"), f"{path}.value")
            return
        text = read_text(raw, "value", path, self._found)
        self._append({"role": role, "content": text}, path, f"{path}.value")
        self._joinable = role == "assistant"

    def _append(self, message: Message, turn: str, text: str) -> None:
        self.messages.append(message)
        self.places.turns.append(turn)
        self.places.texts.append(text)
        self.places.calls.append([])
        self._joinable = False

    def _calls(self, value: object, path: str) -> None:
        if isinstance(value, str):
            value = _parsed(value, path, self._found)
            if value is None:
                self.whole = False
                return
        several = isinstance(value, list)
        calls = value if isinstance(value, list) else [value]
        paths = [f"{path}[{n}]" if several else path for n in range(len(calls))]
        read = [
            call
            for item, where in zip(calls, paths, strict=True)
            if (call := read_call_of(item, where, "", self._found)) is not None
        ]
        if not self._joinable:
            self._append({"role": "assistant", "content": None}, path.removesuffix(".value"), path)
            self._joinable = True
        message = self.messages[-1]
        message["content"] = message["content"] or None
        message.setdefault("tool_calls", []).extend(read)
        self.places.calls[-1] += [(where, f"{where}.arguments") for where in paths]
        if not calls:
            self._found.add(path, "is an empty list of calls", _CALL_HINT)
        self.whole &= len(read) == len(calls)


def read_conversation(raw: object, system: object, found: Problems, draft: Draft) -> None:
    """Fill in the messages of a row from its `conversations` and its `system`."""
    if not isinstance(raw, list):
        found.add("conversations", f"is {kind(raw)}, not a list", "write a list of turns")
        return
    if not raw or len(raw) > MAX_TURNS:
        many = f"has {len(raw)} turns, more than {MAX_TURNS}"
        found.add("conversations", many if raw else "is empty", "a row is one conversation")
        return
    conversation = Conversation(found)
    if isinstance(system, str):
        if system.strip() and not _repeats_first(system, raw, found):
            conversation.system(system)
    elif system is not None:
        found.add("system", f"is {kind(system)}, not a string", "write a string")
    for index, item in enumerate(raw):
        conversation.add(item, f"conversations[{index}]")
    draft.messages, draft.whole = conversation.messages, conversation.whole
    draft.places = conversation.places


def _repeats_first(system: str, raw: list[Any], found: Problems) -> bool:
    """Whether the conversation has the system turn itself."""
    first = raw[0] if isinstance(raw[0], dict) else {}
    if first.get("from", first.get("role")) != "system":
        return False
    if first.get("value", first.get("content")) != system:
        found.add("system", "is another text than the system turn's", "write only one of them")
    return True


def _parsed(value: str, path: str, found: Problems) -> object:
    """One call or a list of calls; `None` if they can't be read."""
    try:
        calls: object = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        found.add(path, f"a tool call is not JSON: {error.msg}", _CALL_HINT)
        return None
    if calls is None or too_deep(calls, 2 * MAX_DEPTH):
        reason = "a tool call is null" if calls is None else "a tool call is nested too deeply"
        found.add(path, reason, _CALL_HINT)
        return None
    if may_repeat(value, calls):
        for where, key in repeated_keys(value):
            found.add(path + where, f"the key '{key}' stands twice in one object", ONCE)
    return exact_json(value) if is_inexact(calls) else calls


def _bad_source(raw: dict[str, Any], path: str, found: Problems) -> None:
    known = "one of " + ", ".join(_ROLES)
    source = raw.get("from")
    if "from" not in raw:
        found.add(f"{path}.from", "is missing", known)
    elif not isinstance(source, str):
        found.add(f"{path}.from", f"is {kind(source)}, not a string", known)
    else:
        lower = source.lower()
        meant = _RENAMED.get(lower, lower if lower in _ROLES else None)
        hint = f"write '{meant}'" if meant else known
        found.add(f"{path}.from", f"'{exactly(source, 40)}' is not a role", hint)
