"""Rows as they come: both dialects read, every fault found at its line and place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.dataset import RejectedRow, Row, read_rows
from job.dataset.rows.hermes import Malformed, declared_tools, nearly_a_tag, parse_tool_calls
from job.dataset.rows.read import read_row
from job.dataset.source.lines import Line
from tests.dataset.standin import WEATHER, chat_row, data_file, turn
from tests.dataset.written import A, U, answered, called, messages, read

GOOD = chat_row("Hello", "Hi.")
SYSTEM = turn("system", '<tools>{"name": "weather"}</tools>')
HERMES = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


def test_all_that_is_wrong_with_a_row_is_told_at_once(tmp_path: Path) -> None:
    bad = messages(
        turn("system", "<tools>nothing</tools>"),
        U,
        U,
        turn("assistant", HERMES),
        turn("user", "Thanks\0"),
        tools=[{}],
    )
    [refused] = read_rows([data_file(tmp_path / "data.jsonl", bad)])
    assert isinstance(refused, RejectedRow)
    assert {problem.path for problem in refused.problems} == {
        "tools[0]",
        "messages[0].content",
        "messages[2]",
        "messages[3].content",
        "messages[4]",
        "messages[4].content",
    }


def test_byte_order_mark_carriage_returns_and_blank_lines_are_borne(tmp_path: Path) -> None:
    raw = json.dumps(GOOD).encode()
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + raw + b"\r\n\r\n  \t\n" + raw)
    file = data_file(tmp_path / "other.jsonl", GOOD)
    rows = list(read_rows([data_file(path, path.read_bytes()), file]))
    assert [(row.line, type(row)) for row in rows] == [(1, Row), (4, Row), (1, Row)]


def test_line_separators_inside_a_text_split_nothing(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c\u2029d\r"
    raw = json.dumps(chat_row(text, "Hi."), ensure_ascii=False).encode()
    [row] = read_rows([data_file(tmp_path / "data.jsonl", raw)])
    assert isinstance(row, Row)
    assert row.messages[0]["content"] == text


def test_openai_calls_come_out_in_one_form(tmp_path: Path) -> None:
    bare = {"name": "weather", "parameters": {}}
    rows = [
        answered(called('{"city": "Oslo"}'), tools=[bare]),
        answered(called({"city": "Oslo"}), tools=json.dumps([bare])),
        answered({"name": "weather", "arguments": {"city": "Oslo"}}, tools=[bare]),
    ]
    read = list(read_rows([data_file(tmp_path / "data.jsonl", *rows)]))
    assert all(isinstance(row, Row) for row in read)
    assert {repr((row.messages, row.tools)) for row in read if isinstance(row, Row)} == {
        repr(
            (
                (
                    U | {"content": "Oslo?"},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [called({"city": "Oslo"})],
                    },
                ),
                [{"type": "function", "function": bare}],
            )
        )
    }


def test_other_keys_are_kept_apart_from_what_the_model_sees(tmp_path: Path) -> None:
    line = chat_row("Hello", "Hi.", id="7", source="mcp", scenario={"a": 1}, tool_name=None)
    line["messages"][0]["weight"] = 0
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)
    assert row.messages == (U, A)
    assert row.meta == {"id": "7", "source": "mcp", "scenario": {"a": 1}, "tool_name": None}


def test_whole_numbers_of_any_size_stay_exact(tmp_path: Path) -> None:
    number = 123456789012345678901234567890
    [row] = read_rows([data_file(tmp_path / "data.jsonl", answered(called({"n": number})))])
    assert isinstance(row, Row)
    assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == {"n": number}


def test_ids_that_pair_pass(tmp_path: Path) -> None:
    both = [called({}, id="a"), called({}, id="b")]
    line = messages(
        U,
        turn("assistant", None, tool_calls=both),
        turn("tool", "2", tool_call_id="b"),
        turn("tool", "1", tool_call_id="a"),
        turn("assistant", "", tool_calls=[called({}, id="c")]),
        tools=[WEATHER],
    )
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)
    assert row.assistant_turns == (1, 4)


@pytest.mark.parametrize("more", [{}, {"refusal": None}])
def test_answers_come_in_the_order_of_the_calls(tmp_path: Path, more: dict[str, Any]) -> None:
    """A template that shows no ids would give the model the answers of the wrong calls. The second
    row is read the careful way."""
    both = [called({"city": "Oslo"}, id="a"), called({"city": "Roma"}, id="b")]
    one = turn("tool", "one", tool_call_id="a")
    other = turn("tool", "other", tool_call_id="b")
    calling = turn("assistant", None, tool_calls=both, **more)
    again = [turn("assistant", "Hi."), U, calling, one, other, turn("assistant", "Hi.")]
    line = messages(U, calling, other, one, *again, tools=[WEATHER])
    row = read(tmp_path, line)
    assert isinstance(row, Row)
    assert [m["content"] for m in row.messages if m["role"] == "tool"] == ["one", "other"] * 2


@pytest.mark.parametrize(
    "text",
    [
        '<tools>[{"name": "a"}, {"name": "b"}]</tools>',
        '<tools>\n{"name": "a"}\n{"name": "b"}\n</tools>',
        '<tools>{"name": "a"},{"name": "b"}</tools>',
        'Within <tools></tools> tags: <tools>{"name": "a"}</tools> <tools>{"name": "b"}</tools>',
        'Between <tools> and </tools>: <tools>{"name": "a"}\n{"name": "b"}</tools>',
        'In <tools> ... </tools> tags. <tools>[{"name": "a"}, {"name": "b"}]</tools>',
        'In <tools> tags: <tools>{"name": "a"}</tools><tools>{"name": "b"}</tools>',
    ],
)
def test_declared_tools_in_every_way_of_writing_them(text: str) -> None:
    assert declared_tools(text) == [{"name": "a"}, {"name": "b"}]


def test_calls_that_are_only_thought_of_are_none(tmp_path: Path) -> None:
    line = messages(U, turn("assistant", "<think>a <tool_call> perhaps?</think>No."))
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)


def test_how_a_row_was_written_is_told(tmp_path: Path) -> None:
    rows = {
        "openai": [
            GOOD,
            answered(called({"city": "Oslo"})),
            messages(turn("system", "Say <tools></tools>."), U, A),
        ],
        "hermes": [
            messages(SYSTEM, U, turn("assistant", HERMES)),
            messages(SYSTEM, U, A),
            messages(U, turn("assistant", HERMES), tools=[WEATHER]),
        ],
        "sharegpt": [{"conversations": [{"from": "human", "value": "x"}, SHAREGPT_ANSWER]}],
    }
    for dialect, lines in rows.items():
        for row in read_rows([data_file(tmp_path / "data.jsonl", *lines)]):
            assert isinstance(row, Row)
            assert row.dialect == dialect


SHAREGPT_ANSWER = {"from": "gpt", "value": "y"}


def test_a_null_beside_the_other_form_is_nothing(tmp_path: Path) -> None:
    conversation = [{"from": "human", "value": "x"}, SHAREGPT_ANSWER]
    lines = [GOOD | {"conversations": None}, {"messages": None, "conversations": conversation}]
    rows = list(read_rows([data_file(tmp_path / "data.jsonl", *lines)]))
    assert [row.dialect for row in rows if isinstance(row, Row)] == ["openai", "sharegpt"]


def test_a_key_that_would_be_lost_is_refused_only_with_something_in_it(tmp_path: Path) -> None:
    line = GOOD | {"functions": [], "images": None, "system": ""}
    line["messages"] = [U, A | {"function_call": None, "weight": 1, "audio": None}]
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)
    assert row.messages == (U, A)
    assert row.meta == {"functions": [], "images": None, "system": ""}


def test_reasoning_under_another_name_is_warned_of(tmp_path: Path) -> None:
    line = messages(U, A | {"thinking": "Hm."})
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)
    assert [(found.path, found.hint) for found in row.warnings] == [
        ("messages[1].thinking", "write it as 'reasoning_content'")
    ]


def test_tools_beside_the_messages_and_in_the_text_are_shown_once(tmp_path: Path) -> None:
    line = messages(SYSTEM, U, turn("assistant", HERMES), tools=[WEATHER])
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)
    assert row.tools is None
    assert [found.path for found in row.warnings] == ["tools"]


def test_a_first_line_that_is_only_a_byte_order_mark_is_blank(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    raw = b"\xef\xbb\xbf\n" + json.dumps(GOOD).encode()
    [row] = read_rows([data_file(path, raw)])
    assert row.line == 2


def test_rows_of_many_batches_come_in_order(tmp_path: Path) -> None:
    lines = [chat_row("x" * (n % 7 * 5000 + 1), "Hi.", id=n) for n in range(300)]
    lines[150] = {"messages": []}
    rows = list(read_rows([data_file(tmp_path / "data.jsonl", *lines)]))
    assert [row.line for row in rows] == list(range(1, 301))
    assert [row.meta["id"] for row in rows if isinstance(row, Row)] == [
        n for n in range(300) if n != 150
    ]


def test_one_line_is_read_as_in_its_file(tmp_path: Path) -> None:
    for line in (GOOD, answered(called({"city": 1})), messages(turn("user", "\x1b"), A)):
        file = data_file(tmp_path / "data.jsonl", line)
        [row] = read_rows([file])
        assert read_row(str(file.path), Line(1, file.path.read_bytes().rstrip())) == row


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: (
        st.lists(children)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "role",
                    "content",
                    "tool_calls",
                    "tools",
                    "function",
                    "name",
                    "arguments",
                    "id",
                    "tool_call_id",
                ]
            )
            | st.text(),
            children,
        )
    ),
    max_leaves=20,
)
turns = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": st.none() | st.text() | st.sampled_from([HERMES, "<tools>", "</tools>"]),
    },
    optional={"tool_calls": json_values, "tool_call_id": json_values},
)
shared_turns = st.fixed_dictionaries(
    {
        "from": st.sampled_from(["system", "human", "gpt", "function_call", "observation"]),
        "value": st.text()
        | json_values
        | st.sampled_from([HERMES, '{"name": "weather", "arguments": {}}'])
        | json_values.map(json.dumps),
    }
)


@settings(max_examples=300, deadline=None)
@given(
    line=st.fixed_dictionaries({"messages": st.lists(turns)}, optional={"tools": json_values})
    | st.fixed_dictionaries(
        {"conversations": st.lists(shared_turns)}, optional={"tools": json_values.map(json.dumps)}
    )
    | json_values
    | st.binary()
)
def test_no_line_makes_the_reader_fail(line: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    for row in read_rows([data_file(path, raw)]):
        assert isinstance(row, Row) or row.problems


@pytest.mark.parametrize(
    "text",
    ["<" + " " * 1_000_000, "<think>" * 200_000 + "<tool_call>", "<tool_call" * 200_000],
    ids=["an opening bracket", "thoughts", "tags"],
)
def test_what_is_opened_and_never_closed_is_looked_through_once(text: str) -> None:
    """From each place anew it would take hours, in which nothing else gets to run."""
    assert nearly_a_tag(text) is None
    assert all(isinstance(call, Malformed) for call in parse_tool_calls(text))
