"""The quick way through a row and the careful one come to the same, and most rows go the quick."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import job.dataset.rows.read
from job.dataset import DataFile, RejectedRow, Row, read_rows
from job.dataset.rows.ordinary import ordinary
from job.dataset.rows.tools import ToolReader
from tests.dataset.standin import WEATHER, data_file, turn
from tests.dataset.written import A, U, call_text, called, hermes, messages, read, tool

STRICT = tool(
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1},
            "units": {"type": "string", "enum": ["metric", "imperial"]},
        },
        "required": ["city"],
    },
    name="forecast",
)
TOOLS = [WEATHER, STRICT]
OSLO = {"city": "Oslo"}

arguments = st.sampled_from(
    [OSLO, {}, {"city": 1}, {"city": "Oslo", "days": 2}, {"city": "Oslo", "units": "x"}, {"a": []}]
)
ids = st.none() | st.sampled_from(["a", "b"])


def _with(key: str, value: object) -> dict[str, Any]:
    return {} if value is None else {key: value}


texts = st.sampled_from(
    [
        *("Hi.", "", " \n", "<tools>", "<think>\n</think>Hi.", "<tool_call>", "tool_call>"),
        *("< tool_call >", "<functioncall> {}", call_text(OSLO) + "<Tool_Calls>"),
        *(call_text(OSLO), call_text(OSLO, "forecast"), call_text({"days": 1}, "forecast")),
        *(call_text(OSLO) * 2, call_text(OSLO, "time"), f"<think>{call_text(OSLO)}</think>"),
        '<tool_call>{"name": "weather", "arguments": {"city": "a", "city": "b"}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {}, "id": 1}</tool_call>',
        f"<tools>{json.dumps(WEATHER)}</tools>",
        f"Use <tools></tools>: <tools>\n{json.dumps(WEATHER)}\n{json.dumps(STRICT)}\n</tools>",
        '<tools>{"name": "weather", "parameters": {"type": "dict"}}</tools>',
    ]
)
structured = st.builds(
    lambda given, name, as_string, identity: called(
        json.dumps(given) if as_string else given, name, **_with("id", identity)
    ),
    arguments,
    st.sampled_from(["weather", "weather", "forecast", "time"]),
    st.booleans(),
    ids,
)
calls = st.lists(
    structured | st.sampled_from([None, called('{"city": "a", "city": "b"}')]), max_size=3
)
turns = st.one_of(
    st.builds(turn, st.sampled_from(["system", "user", "assistant", "tool"]), texts),
    st.builds(lambda text: turn("user", text), texts),
    st.builds(lambda text: turn("assistant", text), texts),
    st.builds(
        lambda text, made: turn("assistant", text, tool_calls=made), texts | st.none(), calls
    ),
    st.builds(lambda identity: turn("tool", "x", **_with("tool_call_id", identity)), ids),
    st.sampled_from(
        [
            *(turn("user", "x", name="Joe"), turn("tool", "x", name="weather"), turn("user", None)),
            *({"role": ["user"], "content": "x"}, {"content": "x"}, "x", turn("USER", "x")),
            turn("assistant", "x", reasoning_content="y"),
        ]
    ),
)
openings = st.sampled_from([[], [U], [turn("system", "Be brief."), U]]) | st.builds(
    lambda text: [turn("system", text), U], texts
)
rows = st.builds(
    lambda first, rest, last, tools, more: (
        messages(*first, *rest, *last, **_with("tools", tools)) | more
    ),
    openings,
    st.lists(turns, max_size=2),
    st.sampled_from([[], [A]]),
    st.sampled_from([TOOLS] * 6 + [json.dumps(TOOLS), None, [], [{}], [WEATHER, WEATHER]]),
    st.sampled_from(
        [*[{}] * 6, {"id": 1}, {"system": "x"}, {"functions": [1]}, {"conversations": None}]
    ),
)


def _both_ways(file: DataFile) -> list[tuple[Row | RejectedRow, Row | RejectedRow]]:
    quick = list(read_rows([file]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.dataset.rows.read, "ordinary", lambda value, tools: None)
        return list(zip(quick, read_rows([file]), strict=True))


@settings(max_examples=1500)
@given(row=rows)
def test_the_quick_way_accepts_only_what_the_careful_one_does_and_as_the_same(
    row: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = data_file(tmp_path_factory.mktemp("rows") / "data.jsonl", row)
    [(quick, careful)] = _both_ways(file)
    assert quick == careful
    if ordinary(row, ToolReader()) is not None:
        assert isinstance(careful, Row)
        assert not careful.warnings


def test_every_order_of_up_to_five_turns_comes_to_the_same(tmp_path: Path) -> None:
    call = called(OSLO)
    first, second = call | {"id": "a"}, call | {"id": "b"}
    kinds = [
        *(U, A, turn("assistant", call_text(OSLO)), turn("assistant", call_text(OSLO) * 2)),
        *(turn("assistant", None, tool_calls=made) for made in ([call], [call, call])),
        *(turn("assistant", None, tool_calls=made) for made in ([first], [first, second])),
        *(turn("tool", "x"), turn("tool", "x", tool_call_id="a")),
        turn("tool", "x", tool_call_id="b"),
    ]
    orders = [order for count in range(1, 5) for order in product(kinds, repeat=count)]
    lines = [messages(U, *order, tools=TOOLS) for order in orders]
    both = _both_ways(data_file(tmp_path / "data.jsonl", *lines))
    assert [quick for quick, _ in both] == [careful for _, careful in both]
    taken = sum(ordinary(line, ToolReader()) is not None for line in lines)
    assert taken > 50


def _answered(identity: str | None) -> dict[str, Any]:
    return messages(
        U,
        turn("assistant", None, tool_calls=[called(json.dumps(OSLO), **_with("id", identity))]),
        turn("tool", "21", **_with("tool_call_id", identity)),
        A,
        tools=TOOLS,
        id="7",
    )


USUAL = {
    "a chat": messages(U, A, U, A, source="x"),
    "a chat with a system turn": messages(turn("system", "Be brief."), U, A),
    "Hermes": hermes(TOOLS, call_text(OSLO), turn("tool", "<tool_response>\n21"), A),
    "Hermes, two calls": hermes(
        TOOLS, call_text(OSLO) * 2, turn("tool", "1"), turn("tool", "2"), A
    ),
    "Hermes, a call at the end": hermes(TOOLS, call_text(OSLO)),
    "OpenAI": _answered("call_0"),
    "OpenAI without ids": _answered(None),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_rows_take_the_quick_way(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("took the careful way")

    expected = read(tmp_path, USUAL[name])
    monkeypatch.setattr(job.dataset.rows.read, "normalise", never)
    monkeypatch.setattr(job.dataset.rows.read, "examine", never)
    row = read(tmp_path, USUAL[name])
    assert isinstance(row, Row)
    assert row == expected


def test_what_is_odd_in_the_text_of_an_ordinary_row_is_told(tmp_path: Path) -> None:
    row = read(tmp_path, messages(U, turn("assistant", "a\x1b")))
    assert isinstance(row, RejectedRow)
