"""The shape of a row: from parsed JSON to messages in one form, with what doesn't fit.

Hermes, OpenAI and ShareGPT rows differ in where turns, calls and tools are written; all come out
as the same messages. What the order of turns and the calls mean is checked after this, in `check`.
"""

from __future__ import annotations

from typing import Any, Final

from job.dataset.rows.draft import MAX_TURNS, Draft
from job.dataset.rows.message import ROLES, UNREAD, read_message
from job.dataset.rows.row import Message, Problems
from job.dataset.rows.sharegpt import read_conversation
from job.dataset.rows.tools import ToolReader
from job.dataset.rows.words import brief, kind

_ROW: Final = 'write {"messages": […]}'
_ROLES: Final = frozenset(ROLES)
_READ: Final = ("messages", "tools")
_READ_SHAREGPT: Final = ("messages", "conversations", "tools", "system")
_LOST: Final = {
    "functions": "the old form: write 'tools'",
    "images": "only text is trained",
    "videos": "only text is trained",
    "audios": "only text is trained",
}
"""Keys of a row without which it would mean something else."""
_LOST_KEYS: Final = frozenset(_LOST)


def normalise(value: object, tools: ToolReader, found: Problems) -> Draft:
    """Read the parsed JSON of one line. Everything wrong with its shape goes into `found`."""
    draft = Draft()
    if not isinstance(value, dict):
        hint = (
            'write {"messages": […]}, one object a line, not an array'
            if isinstance(value, list)
            else _ROW
        )
        found.add("", f"is {kind(value)}, not a JSON object", hint)
        return draft
    read: tuple[str, ...] = _READ
    if value.get("conversations") is None:
        _messages(value, draft, found)
    elif value.get("messages") is not None:
        found.add("conversations", "stands beside 'messages'", "give the conversation once")
    else:
        read, draft.dialect = _READ_SHAREGPT, "sharegpt"
        read_conversation(value["conversations"], value.get("system"), found, draft)
    if "tools" in value:
        draft.toolbox = tools.from_key(value["tools"], found)
        found.inexact |= draft.toolbox.inexact
    draft.meta = value.copy()
    for key in read:
        draft.meta.pop(key, None)
    if not _LOST_KEYS.isdisjoint(draft.meta):
        _refuse_losses(draft.meta, found)
    return draft


def _refuse_losses(meta: dict[str, Any], found: Problems) -> None:
    for key, hint in _LOST.items():
        if meta.get(key):
            found.add(key, "would be lost", hint)


def _messages(value: dict[str, Any], draft: Draft, found: Problems) -> None:
    raw = value.get("messages")
    if "messages" not in value:
        names = ", ".join(f"'{brief(key)}'" for key in list(value)[:8]) or "nothing"
        found.add("messages", "is missing", f"the row has {names}")
    elif not isinstance(raw, list):
        hint = "write the list itself, not a string of JSON"
        hint = hint if isinstance(raw, str) else "write a list of turns"
        found.add("messages", f"is {kind(raw)}, not a list", hint)
    elif not raw or len(raw) > MAX_TURNS:
        many = f"has {len(raw)} turns, more than {MAX_TURNS}"
        found.add("messages", many if raw else "is empty", "a row is one conversation")
    else:
        draft.messages = _all_of(raw, found)
        draft.whole = UNREAD not in draft.messages
        if "system" in value:
            _no_system_beside(value["system"], draft.messages, found)


def _all_of(raw: list[Any], found: Problems) -> list[Message]:
    messages: list[Message] = []
    for index, item in enumerate(raw):
        # The usual turn, without a function call.
        if type(item) is dict and len(item) == 2:
            role, content = item.get("role"), item.get("content")
            if type(role) is str and role in _ROLES and type(content) is str:
                messages.append({"role": role, "content": content})
                continue
        messages.append(read_message(item, f"messages[{index}]", found) or UNREAD)
    return messages


def _no_system_beside(system: object, turns: list[Message], found: Problems) -> None:
    """A system prompt beside the messages, as in Anthropic's API, would not be seen."""
    if isinstance(system, str) and system.strip() and turns and turns[0]["role"] != "system":
        hint = "write it as the first message, or give the key another name"
        found.add("system", "would be lost: there is no system turn", hint)
