"""What a conversation must be, beyond its shape: the order of turns, calls that were declared and
fit their schema, answers that belong to a call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from job.dataset.rows.answers import Answers
from job.dataset.rows.draft import Draft
from job.dataset.rows.hermes import Malformed, call_blocks, nearly_a_tag, parse_call
from job.dataset.rows.repeats import may_repeat, repeated_keys
from job.dataset.rows.row import Message, Problems
from job.dataset.rows.schema import Schema
from job.dataset.rows.tools import ONCE, Toolbox, ToolReader
from job.dataset.rows.words import brief, exactly

_SAY = "write what it says or calls, or end the conversation before it"
_ASK = "write what is asked, or leave the row out"
_AS_JSON = 'write <tool_call>\\n{"name": "…", "arguments": {…}}\\n</tool_call>'


def check(draft: Draft, tools: ToolReader, found: Problems) -> None:
    """Add everything that is wrong with a draft that is whole to `found`; tell its dialect."""
    messages = draft.messages
    for index, reason, hint in _order(tuple([message["role"] for message in messages])):
        found.add(draft.places.turn(index), reason, hint)
    declared, in_text = _declared(draft, tools, found)
    answers = Answers(draft.places, found)
    structured = False
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "assistant":
            calls = message.get("tool_calls", ())
            written = _turn(index, message["content"], calls, draft, declared, found)
            if written or calls or answers.awaited:
                answers.called(index, calls, written)
                structured, in_text = structured or bool(calls), in_text or bool(written)
        elif role == "tool":
            answers.answer(index, message)
        else:
            if answers.awaited:
                answers.nothing_more()
            _not_empty(index, message, draft, found)
    if in_text and not structured and draft.dialect == "openai":
        draft.dialect = "hermes"


def _not_empty(index: int, message: Message, draft: Draft, found: Problems) -> None:
    """A question. A system turn may be empty, as a column is that most rows don't fill."""
    text = message["content"]
    if message["role"] == "user" and text is not None and not text.strip():
        found.add(draft.places.text(index), "the user's turn is empty", _ASK)


@lru_cache(maxsize=4096)
def _order(roles: tuple[str, ...]) -> tuple[tuple[int, str, str], ...]:
    """(index, reason, hint) of each turn that stands where it may not."""
    faults = []
    before = ""
    for index, role in enumerate(roles):
        if fault := _misplaced(role, before, index):
            faults.append((index, *fault))
        before = role
    if before != "assistant":
        reason = f"the last turn is '{before}', so nothing answers it"
        faults.append((len(roles) - 1, reason, "end the conversation with an assistant turn"))
    return tuple(faults)


def _misplaced(role: str, before: str, index: int) -> tuple[str, str] | None:
    """Why a turn may not stand here, and what to do."""
    if role == "system":
        return ("a system turn comes after others", "it must be the first") if index else None
    if before in ("", "system") and role != "user":
        return (f"the first turn after the system's is '{role}'", "it must be the user's")
    if role == before and role != "tool":
        return (f"two {role} turns in a row", "join them: chat templates expect turns to alternate")
    return None


def _declared(draft: Draft, tools: ToolReader, found: Problems) -> tuple[Toolbox, bool]:
    """The tools that the model is told of, and whether the text of the system turn tells them."""
    beside, first = draft.toolbox, draft.messages[0]
    if first["role"] != "system" or not first["content"]:
        return beside, False
    box = tools.from_text(first["content"], draft.places.text, found)
    if box is None:
        return beside, False
    if not beside.names():
        return box, True
    # Both, as in Hermes' public data: the model reads them once.
    if beside.names() <= box.names():
        reason = "are left out: <tools> in the system turn declares them already"
        found.warn("tools", reason, "the model would read them twice")
        draft.toolbox = Toolbox()
    else:
        reason = "are others than those of <tools> in the system turn"
        found.add("tools", reason, "declare all tools in one place")
    return beside.and_all_of(box), True


def _turn(
    index: int,
    text: str | None,
    calls: Sequence[dict[str, Any]],
    draft: Draft,
    declared: Toolbox,
    found: Problems,
) -> int:
    """Check one assistant turn; how many calls there are in its text, or what is meant as such."""
    if calls:
        _calls(index, calls, draft, declared, found)
    if text and declared.names() and (tag := nearly_a_tag(text)):
        reason = f"holds '{brief(tag, 40)}', which no server reads as a call"
        found.warn(draft.places.text(index), reason, _AS_JSON)
    if text and "tool_call>" in text:
        return _written(index, text, draft, declared, found)
    if not calls and text is not None and (not text or text.isspace()):
        found.add(draft.places.text(index), "the assistant's turn is empty", _SAY)
    return 0


def _calls(
    index: int,
    calls: Sequence[dict[str, Any]],
    draft: Draft,
    declared: Toolbox,
    found: Problems,
) -> None:
    """Check the calls beside the text of a turn."""
    for n, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        if declared.surely_fits(name, arguments):
            continue
        schema = declared.schema(name)
        if schema is None:
            _unknown(name, draft.places.call(index, n), declared, found)
        else:
            _arguments(schema, name, arguments, draft.places.arguments(index, n), True, found)


def _written(index: int, text: str, draft: Draft, declared: Toolbox, found: Problems) -> int:
    """Check the calls in the text of a turn; their number, with what is meant as one."""
    blocks = call_blocks(text)
    for block in blocks:
        call = block if isinstance(block, Malformed) else parse_call(block)
        if isinstance(call, Malformed):
            reason = f"a tool call {brief(call.reason, 200)}"
            found.add(draft.places.text(index), reason, _AS_JSON)
            continue
        assert isinstance(block, str)
        # It has no other keys than its own, or it has one that stands twice or means nothing.
        if may_repeat(block, {"name": call.name, "arguments": call.arguments}):
            _repeated(block, draft.places.text(index), found)
        if declared.surely_fits(call.name, call.arguments):
            continue
        path, schema = draft.places.text(index), declared.schema(call.name)
        if schema is None:
            _unknown(call.name, path, declared, found)
        else:
            _arguments(schema, call.name, call.arguments, path, False, found)
    return len(blocks)


def _repeated(block: str, path: str, found: Problems) -> None:
    try:
        repeated = repeated_keys(block)
    except RecursionError:
        found.add(path, "a tool call is nested too deeply", _AS_JSON)
        return
    for where, key in repeated:
        at = f" at '{where.removeprefix('.')}'" if where else ""
        found.add(path, f"a tool call has the key '{key}'{at} twice in one object", ONCE)


def _arguments(
    schema: Schema, name: str, arguments: dict[str, Any], path: str, exact: bool, found: Problems
) -> None:
    """Whether the arguments are what the tool asks for. `exact`: `path` leads into them."""
    for fault in schema.faults(arguments):
        where = fault.path.removeprefix(".")
        what = f"the argument '{where}'" if where else "the arguments"
        reason = f"{what} of '{brief(name)}' {fault.reason}"
        found.add(path + fault.path if exact else path, reason, fault.hint)
    for fault in schema.undeclared(arguments):
        reason = f"the argument '{fault.path.removeprefix('.')}' of '{brief(name)}' {fault.reason}"
        found.warn(path + fault.path if exact else path, reason, fault.hint)


def _unknown(name: str, path: str, declared: Toolbox, found: Problems) -> None:
    names = ", ".join(sorted(declared.names())[:8]) or "no tools at all"
    reason = f"calls '{exactly(name, 80)}', which is not declared"
    found.add(path, reason, f"declared: {exactly(names, 200)}")
