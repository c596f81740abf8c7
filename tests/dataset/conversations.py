"""Rows as they stand in the data, in both dialects, each there for one thing that masks get wrong.

Texts of system, user and tool turns hold words that no assistant turn has: `OUTSIDE`.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

from job.dataset import Row, read_rows
from tests.dataset.standin import data_file, turn

OUTSIDE: Final = ("sysword", "userword", "toolword", "declaredword")

WEATHER: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "declaredword: the weather of a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
BOOK: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "book_trip",
        "description": "declaredword: books a trip",
        "parameters": {"type": "object", "properties": {"legs": {"type": "array"}}},
    },
}
TOOLS: Final = [WEATHER, BOOK]

_SYSTEM: Final = turn("system", "sysword: be brief.")
HERMES_SYSTEM: Final = turn(
    "system",
    "sysword: call tools.\n<tools>\n"
    + "\n".join(json.dumps(tool) for tool in TOOLS)
    + "\n</tools>",
)
_LEGS: Final = {
    "legs": [
        {"from": "Zürich ⛰", "to": "東京", "days": [1, 2.5, -3e-7]},
        {"note": 'say "hi"\n\t\\ and </b>', "first": True, "via": None, "deep": {"a": {"b": []}}},
    ]
}


def user(text: str) -> dict[str, Any]:
    return turn("user", "userword " + text)


def said(text: str | None, **more: Any) -> dict[str, Any]:
    return turn("assistant", text, **more)


def told(text: str, **more: Any) -> dict[str, Any]:
    return turn("tool", json.dumps({"toolword": text}, ensure_ascii=False), **more)


def written(name: str, **arguments: Any) -> str:
    """A call as Hermes rows write it."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def call(name: str, given: str | None = None, /, **arguments: Any) -> dict[str, Any]:
    """A call as OpenAI rows write it, with the id if one is given: the arguments are a string of
    JSON."""
    text = json.dumps(arguments, ensure_ascii=False)
    inner = {"type": "function", "function": {"name": name, "arguments": text}}
    return inner if given is None else inner | {"id": given}


def _row(*messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"messages": list(messages)} | ({"tools": tools} if tools else {})


def _calls(*calls: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    return said(text, tool_calls=list(calls))


TEXT: Final[dict[str, dict[str, Any]]] = {
    "one answer": _row(user("hello"), said("Good day.")),
    "one answer to a system turn": _row(_SYSTEM, user("hello"), said("Good day.")),
    "several answers": _row(
        _SYSTEM, user("one"), said("First."), user("two"), said("Second."), user("3"), said("3rd.")
    ),
    "several answers without a system turn": _row(
        user("one"), said("First."), user("two"), said("Second.")
    ),
    "unicode": _row(
        turn("system", "sysword ğüş"),
        turn("user", "userword Zażółć 👩‍👩‍👧 日本語 e\u0301"),
        said("Grüße 🌍🏳️‍🌈 — 日本語, e\u0301 a\u0308, \u1112\u1161\u11ab, שלום!"),
        user("¿y?"),
        said("🙂"),
    ),
    "blanks around texts": _row(
        turn("system", "  sysword \n"),
        turn("user", "\n userword  \n\n"),
        said("Ends with blanks.  \n\n"),
        turn("user", "userword\t"),
        said("   Starts with blanks\n"),
    ),
    "line ends before an answer": _row(
        user("one"), said("\n\nAfter two lines."), user("two"), said("\n  \n - indented")
    ),
    "the same words by both": _row(
        turn("user", "Echo: hello."),
        said("Echo: hello."),
        turn("user", "Echo: hello."),
        said("Echo"),
    ),
    "words that look like markers": _row(
        user("assistant\n im_end eot_id assistant:"),
        said("user\nsystem\n<im_end> user\n[INST] </s>"),
    ),
    "long answer": _row(user("tell"), said("A word, 123 numbers and\nlines. " * 40)),
    "thinks": _row(user("why"), said("<think>\nhm, 2 + 2\n</think>\n\nFour.")),
    "thought before": _row(
        user("why"), said("<think>\nhm\n</think>\n\nFour."), user("sure"), said("Yes.")
    ),
}
"""No tools."""

HERMES: Final[dict[str, dict[str, Any]]] = {
    "H one call": _row(
        HERMES_SYSTEM,
        user("oslo"),
        said(written("weather", city="Oslo")),
        told("clear"),
        said("Clear."),
    ),
    "H ends with a call": _row(HERMES_SYSTEM, user("oslo"), said(written("weather", city="Oslo"))),
    "H parallel calls": _row(
        HERMES_SYSTEM,
        user("both"),
        said(written("weather", city="Oslo") + "\n" + written("weather", city="Roma")),
        told("clear"),
        told("rain"),
        said("Clear, and rain."),
    ),
    "H text, then a call": _row(
        HERMES_SYSTEM,
        user("oslo"),
        said("Let me look.\n" + written("weather", city="Tromsø ❄")),
        told("clear"),
        said("Clear."),
    ),
    "H several rounds": _row(
        HERMES_SYSTEM,
        user("plan"),
        said(written("weather", city="Oslo")),
        told("clear"),
        said(written("book_trip", **_LEGS)),
        told("booked"),
        said("**Booked.**"),
        user("again"),
        said(written("weather", city="Roma")),
        told("rain"),
        said("{rain}"),
    ),
    "H thinks after the tool": _row(
        HERMES_SYSTEM,
        user("oslo"),
        said(written("weather", city="Oslo")),
        told("clear"),
        said("<think>\nclear, then\n</think>\n\nClear."),
    ),
    "H thinks before the call": _row(
        HERMES_SYSTEM,
        user("oslo"),
        said("<think>\nlook\n</think>\n" + written("weather", city="Oslo")),
        told("clear"),
        said("Clear."),
    ),
    "H no call": _row(HERMES_SYSTEM, user("hello"), said("Good day.")),
}
"""Tools and calls in the text."""

OPENAI: Final[dict[str, dict[str, Any]]] = {
    "O one call": _row(
        _SYSTEM,
        user("oslo"),
        _calls(call("weather", "c1", city="Oslo")),
        told("clear", tool_call_id="c1"),
        said("Clear."),
        tools=[WEATHER],
    ),
    "O one call, no system turn, no ids": _row(
        user("oslo"), _calls(call("weather", city="Oslo")), told("clear"), said("Ok."), tools=TOOLS
    ),
    "O ends with a call": _row(user("oslo"), _calls(call("weather", city="Oslo")), tools=TOOLS),
    "O parallel calls": _row(
        _SYSTEM,
        user("both"),
        _calls(call("weather", "c1", city="Oslo"), call("weather", "c2", city="Roma")),
        told("clear", tool_call_id="c1"),
        told("rain", tool_call_id="c2"),
        said("Clear, and rain."),
        tools=TOOLS,
    ),
    "O three parallel calls": _row(
        user("all"),
        _calls(*(call("weather", city=city) for city in ("Oslo", "Roma", "Bonn"))),
        tools=TOOLS,
    ),
    "O text and a call": _row(
        user("oslo"),
        _calls(call("weather", city="Oslo"), text="Let me look."),
        told("clear"),
        said("Clear."),
        tools=TOOLS,
    ),
    "O several rounds": _row(
        _SYSTEM,
        user("plan"),
        _calls(call("weather", city="Oslo")),
        told("clear"),
        _calls(call("book_trip", **_LEGS)),
        told("booked"),
        said("Booked. 🎉"),
        user("again"),
        _calls(call("weather", city="東京")),
        told("雨"),
        said("雨"),
        tools=TOOLS,
    ),
    "O nothing as arguments": _row(
        user("go"), _calls(call("weather")), told("x"), said("Gone."), tools=TOOLS
    ),
    "O tools, but no call": _row(_SYSTEM, user("hello"), said("Good day."), tools=TOOLS),
    "O tools, several turns": _row(
        _SYSTEM, user("one"), said("First."), user("two"), said("Second."), tools=TOOLS
    ),
    "O reasons apart": _row(
        user("why"), said("Four.", reasoning_content="two and two"), tools=TOOLS
    ),
}
"""Tools beside the messages, calls beside the text."""

CONVERSATIONS: Final = TEXT | HERMES | OPENAI


@cache
def as_read(*names: str) -> dict[str, Row]:
    """The named conversations (all of them if none is named), read as the job reads its data."""
    raw = {name: CONVERSATIONS[name] for name in names or CONVERSATIONS}
    return rows(raw)


def rows(raw: dict[str, dict[str, Any]]) -> dict[str, Row]:
    """Rows by name. Fails if one is refused before any template sees it."""
    found: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = data_file(Path(folder) / "data.jsonl", *raw.values())
        for name, row in zip(raw, read_rows([file]), strict=True):
            assert isinstance(row, Row), row
            found[name] = row
    return found
