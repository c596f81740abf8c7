"""What a conversation must be, beyond its shape: the order of turns, calls that were declared,
answers that belong to a call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from job.dataset.hermes import Malformed, declared_tools, parse_tool_calls
from job.dataset.normalise import tool_name
from job.dataset.row import Message, Problems


def check(messages: Sequence[Message], tools: list[dict[str, Any]] | None, found: Problems) -> None:
    """Add everything that is wrong to `found`."""
    _order(messages, found)
    _calls(messages, _declared(messages, tools, found), found)
    _pairs(messages, found)


def _order(messages: Sequence[Message], found: Problems) -> None:
    before = ""
    for i, message in enumerate(messages):
        role = message["role"]
        if reason := _misplaced(role, before, i):
            found.add(f"messages[{i}]", *reason)
        before = role
    if before != "assistant":
        found.add(
            f"messages[{len(messages) - 1}]",
            f"the last turn is '{before}', so nothing answers it",
            "end the conversation with an assistant turn",
        )


def _misplaced(role: str, before: str, index: int) -> tuple[str, str] | None:
    """Why a turn may not stand here, and what to do."""
    if role == "system":
        return ("a system turn comes after others", "it must be the first") if index else None
    if before in ("", "system") and role != "user":
        return (f"the first turn after the system's is '{role}'", "it must be the user's")
    if role == before and role != "tool":
        return (f"two {role} turns in a row", "join them: chat templates expect turns to alternate")
    return None


def _declared(
    messages: Sequence[Message], tools: list[dict[str, Any]] | None, found: Problems
) -> set[str]:
    """Names of the tools that the model is told of."""
    declared = list(tools or ())
    if messages[0]["role"] == "system" and messages[0]["content"]:
        try:
            for tool in declared_tools(messages[0]["content"]):
                if tool_name(tool) is None:
                    found.add("messages[0].content", "a tool in <tools> has no name")
                else:
                    declared.append(tool)
        except ValueError as error:
            found.add("messages[0].content", f"<tools> {error}", "write tools as JSON")
    return {name for tool in declared if (name := tool_name(tool))}


def _calls(messages: Sequence[Message], declared: set[str], found: Problems) -> None:
    called = False
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        if message["role"] == "tool":
            if not called:
                found.add(path, "a tool turn, but no assistant turn before it calls a tool")
        elif message["role"] == "assistant":
            called = _turn(message, path, declared, found)
        else:
            called = False


def _turn(message: Message, path: str, declared: set[str], found: Problems) -> bool:
    """Check one assistant turn; whether it calls (or means to)."""
    text, calls = message["content"] or "", message.get("tool_calls", [])
    written = parse_tool_calls(text)
    for call in written:
        if isinstance(call, Malformed):
            found.add(f"{path}.content", f"a tool call {call.reason}", _AS_JSON)
        else:
            _known(call.name, f"{path}.content", declared, found)
    for n, call in enumerate(calls):
        _known(call["function"]["name"], f"{path}.tool_calls[{n}]", declared, found)
    if not text.strip() and not calls:
        found.add(f"{path}.content", "the assistant's turn is empty")
    return bool(written or calls)


_AS_JSON = 'write <tool_call>\\n{"name": "…", "arguments": {…}}\\n</tool_call>'


def _known(name: str, path: str, declared: set[str], found: Problems) -> None:
    if name not in declared:
        names = ", ".join(sorted(declared)[:8]) or "no tools at all"
        found.add(path, f"calls '{name[:80]}', which is not declared", f"declared: {names}")


def _pairs(messages: Sequence[Message], found: Problems) -> None:
    """Ids of calls and of the answers to them, where they are given."""
    open_ids: dict[str, str] = {}
    any_ids = False
    for i, message in enumerate(messages):
        if message["role"] == "tool":
            _answer(message, f"messages[{i}].tool_call_id", open_ids, any_ids, found)
            continue
        _unanswered(open_ids.values(), found)
        open_ids = _ids(message, f"messages[{i}].tool_calls", found)
        any_ids = bool(open_ids)
    # A conversation may end with a call: what is still open after the last turn is no problem.


def _answer(
    message: Message, path: str, open_ids: dict[str, str], any_ids: bool, found: Problems
) -> None:
    given = message.get("tool_call_id")
    if given is None:
        if any_ids:
            found.add(path, "is missing, though the calls have ids")
    elif open_ids.pop(given, None) is None:
        found.add(path, f"'{given[:80]}' is the id of no open call in the turn before")


def _unanswered(paths: Iterable[str], found: Problems) -> None:
    for path in paths:
        found.add(path, "no tool turn answers this call", "add it, or end the conversation here")


def _ids(message: Message, path: str, found: Problems) -> dict[str, str]:
    """Id → path of each call of a turn that has one."""
    ids: dict[str, str] = {}
    for n, call in enumerate(message.get("tool_calls", [])):
        if (given := call.get("id")) is None:
            continue
        if given in ids:
            found.add(f"{path}[{n}].id", f"'{given[:80]}' is the id of another call, too")
        ids[given] = f"{path}[{n}]"
    return ids
