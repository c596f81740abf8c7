"""Conversations that hypothesis makes up: tools with JSON Schemas, calls that satisfy them, and the
same conversation as each dialect writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

Json: TypeAlias = Any
Kind: TypeAlias = tuple[dict[str, Any], st.SearchStrategy[Json]]
"""A JSON Schema, and values that satisfy it."""

_UNICODE: Final = st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="<\ufffd")
"""All of it, but for what starts a tag or a special token."""

TEXTS: Final = (
    st.text(_UNICODE | st.sampled_from("ab é\n\u0301日🌍\u200d"), min_size=1, max_size=40)
    .map(str.strip)
    .filter(bool)
)
NAMES: Final = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
_KEYS: Final = st.text(_UNICODE, min_size=1, max_size=5)


@dataclass(frozen=True)
class Call:
    """One call, and what the tool answers."""

    name: str
    arguments: dict[str, Json]
    answer: str


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; before the answer, turns that call tools."""

    question: str
    rounds: tuple[tuple[Call, ...], ...]
    answer: str


@dataclass(frozen=True)
class Conversation:
    """The same in any dialect."""

    system: str | None
    tools: tuple[dict[str, Any], ...]
    exchanges: tuple[Exchange, ...]

    @property
    def calls(self) -> list[Call]:
        return [call for each in self.exchanges for turn in each.rounds for call in turn]

    @property
    def parallel(self) -> bool:
        return any(len(turn) > 1 for each in self.exchanges for turn in each.rounds)


def scalars() -> st.SearchStrategy[Kind]:
    plain: list[Kind] = [
        ({"type": "string"}, TEXTS),
        ({"type": "integer"}, st.integers()),
        ({"type": "integer", "minimum": 0, "maximum": 9}, st.integers(0, 9)),
        ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False)),
        ({"type": "boolean"}, st.booleans()),
        ({"type": ["string", "null"]}, st.none() | TEXTS),
    ]
    chosen = st.lists(TEXTS, min_size=1, max_size=3, unique=True)
    enums = chosen.map(lambda names: ({"enum": names}, st.sampled_from(names)))
    return st.sampled_from(plain) | enums


def kinds() -> st.SearchStrategy[Kind]:
    """Schemas that nest."""
    return st.recursive(scalars(), lambda inner: _lists(inner) | objects(inner), max_leaves=3)


def _lists(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return inner.map(
        lambda kind: (
            {"type": "array", "items": kind[0], "maxItems": 3},
            st.lists(kind[1], max_size=3),
        )
    )


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Kind]) -> Kind:
    named = draw(st.dictionaries(_KEYS, inner, max_size=3))
    required = draw(st.lists(st.sampled_from(sorted(named)), unique=True)) if named else []
    schema = {
        "type": "object",
        "properties": {name: kind[0] for name, kind in named.items()},
        "required": required,
        "additionalProperties": False,
    }
    values = st.fixed_dictionaries(
        {name: named[name][1] for name in required},
        optional={name: kind[1] for name, kind in named.items() if name not in required},
    )
    return schema, values


@st.composite
def conversations(draw: st.DrawFn, *, calling: bool | None = None) -> Conversation:
    """`calling`: with a call in it, or without any tool."""
    names = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    parameters = {name: draw(objects(kinds())) for name in names}
    tools = tuple(
        {"name": name, "description": draw(TEXTS), "parameters": schema}
        for name, (schema, _) in parameters.items()
    )

    def called(name: str) -> st.SearchStrategy[Call]:
        return st.builds(Call, st.just(name), parameters[name][1], TEXTS)

    turns = st.lists(st.sampled_from(names).flatmap(called), min_size=1, max_size=2).map(tuple)
    rounds = st.lists(turns, max_size=2).map(tuple) if calling is not False else st.just(())
    exchanges = st.lists(st.builds(Exchange, TEXTS, rounds, TEXTS), min_size=1, max_size=3)
    made = tuple(draw(exchanges))
    if calling and not any(each.rounds for each in made):
        first = Exchange(made[0].question, (draw(turns),), made[0].answer)
        made = (first, *made[1:])
    system = draw(st.none() | TEXTS)
    return Conversation(system, () if calling is False else tools, made)


def openai(conversation: Conversation) -> dict[str, Any]:
    messages = [_turn("system", conversation.system)] if conversation.system else []
    numbers = iter(range(10_000))
    for each in conversation.exchanges:
        messages.append(_turn("user", each.question))
        for calls in each.rounds:
            ids = [f"call_{next(numbers)}" for _ in calls]
            written = [
                {"id": i, "type": "function", "function": {"name": call.name, "arguments": text}}
                for i, call, text in zip(ids, calls, _texts(calls), strict=True)
            ]
            messages.append({"role": "assistant", "content": None, "tool_calls": written})
            messages += [
                _turn("tool", call.answer) | {"tool_call_id": i}
                for i, call in zip(ids, calls, strict=True)
            ]
        messages.append(_turn("assistant", each.answer))
    row: dict[str, Any] = {"messages": messages}
    if conversation.tools:
        row["tools"] = [{"type": "function", "function": tool} for tool in conversation.tools]
    return row


def sharegpt(conversation: Conversation) -> dict[str, Any]:
    turns: list[dict[str, str]] = []
    for each in conversation.exchanges:
        turns.append(_said("human", each.question))
        for calls in each.rounds:
            named = [{"name": call.name, "arguments": call.arguments} for call in calls]
            turns.append(_said("function_call", json.dumps(named)))
            turns += [_said("observation", call.answer) for call in calls]
        turns.append(_said("gpt", each.answer))
    row: dict[str, Any] = {"conversations": turns}
    if conversation.system:
        row["system"] = conversation.system
    if conversation.tools:
        row["tools"] = json.dumps(conversation.tools)
    return row


def hermes(conversation: Conversation) -> dict[str, Any]:
    messages = []
    if conversation.tools:
        lines = [json.dumps(tool, ensure_ascii=False) for tool in conversation.tools]
        declared = "\n".join(["<tools>", *lines, "</tools>"])
        messages.append(_turn("system", f"{conversation.system or ''}\n{declared}".strip()))
    elif conversation.system:
        messages.append(_turn("system", conversation.system))
    for each in conversation.exchanges:
        messages.append(_turn("user", each.question))
        for calls in each.rounds:
            messages.append(_turn("assistant", "\n".join(_blocks(calls))))
            messages += [_turn("tool", call.answer) for call in calls]
        messages.append(_turn("assistant", each.answer))
    return {"messages": messages}


DIALECTS: Final = {"openai": openai, "sharegpt": sharegpt, "hermes": hermes}


def _turn(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


def _said(source: str, value: str) -> dict[str, str]:
    return {"from": source, "value": value}


def _texts(calls: Sequence[Call]) -> Iterator[str]:
    return (json.dumps(call.arguments, ensure_ascii=False) for call in calls)


def _blocks(calls: Sequence[Call]) -> Iterator[str]:
    for call, text in zip(calls, _texts(calls), strict=True):
        name = json.dumps(call.name)
        yield f'<tool_call>\n{{"name": {name}, "arguments": {text}}}\n</tool_call>'
