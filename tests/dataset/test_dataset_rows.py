"""Rows as they come: both dialects read, every fault found at its line and place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.dataset import RejectedRow, Row, read_rows
from job.dataset.hermes import MAX_DEPTH, declared_tools
from tests.dataset.standin import WEATHER, chat_row, data_file, turn

GOOD = chat_row("Hello", "Hi.")
SYSTEM = turn("system", '<tools>{"name": "weather"}</tools>')
HERMES = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


def messages(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(turns), **more}


def answered(*calls: Any, **more: Any) -> dict[str, Any]:
    """A row whose last turn makes these calls in the OpenAI form."""
    last = {"role": "assistant", "content": None, "tool_calls": list(calls)}
    return messages(turn("user", "Oslo?"), last, **({"tools": [WEATHER]} | more))


def hermes(text: str) -> dict[str, Any]:
    return messages(SYSTEM, turn("user", "Oslo?"), turn("assistant", text))


def called(arguments: Any, name: Any = "weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value


U, A = turn("user", "Hello"), turn("assistant", "Hi.")

MALFORMED: dict[str, tuple[bytes | dict[str, Any] | list[Any], str, str]] = {
    "broken JSON": (b'{"messages": [', "", "is not JSON"),
    "two objects on a line": (b'{"a": 1}{"b": 2}', "", "unexpected content"),
    "Python instead of JSON": (b"{'messages': []}", "", "is not JSON"),
    "NaN": (b'{"messages": [], "score": NaN}', "", "is not JSON"),
    "not UTF-8": (b'{"messages": "\xe9"}', "", "is not UTF-8 at byte 15"),
    "half a surrogate pair": (b'{"messages": "\\ud800"}', "", "is not JSON"),
    "NUL bytes": (b"\0\0\0\0", "", "NUL bytes"),
    "nested without end": (b"[" * 5000, "", "is not JSON"),
    "a list": ([], "", "is a list, not a JSON object"),
    "a string": (b'"hello"', "", "is a string, not a JSON object"),
    "no messages": ({"prompt": "Hello"}, "messages", "is missing"),
    "messages null": ({"messages": None}, "messages", "is null, not a list"),
    "messages empty": ({"messages": []}, "messages", "is empty"),
    "a message that is a string": (messages("Hello", A), "messages[0]", "not an object"),
    "no role": (messages({"content": "x"}, A), "messages[0].role", "is missing"),
    "an unknown role": (messages(turn("human", "x"), A), "messages[0].role", "'human'"),
    "a role in capitals": (messages(turn("User", "x"), A), "messages[0].role", "'User'"),
    "a role that is a list": (
        messages({"role": ["user"], "content": "x"}, A),
        "messages[0].role",
        "is a list",
    ),
    "content null": (messages(turn("user", None), A), "messages[0].content", "is null"),
    "content missing": (messages({"role": "user"}, A), "messages[0].content", "is missing"),
    "content in parts": (
        messages({"role": "user", "content": [{"type": "text", "text": "x"}]}, A),
        "messages[0].content",
        "is a list",
    ),
    "a tool's answer as an object": (
        messages(SYSTEM, U, turn("assistant", HERMES), {"role": "tool", "content": {}}, A),
        "messages[3].content",
        "is an object",
    ),
    "a NUL in the text": (messages(turn("user", "a\0b"), A), "messages[0].content", "NUL"),
    "an empty answer": (messages(U, turn("assistant", " \n")), "messages[1].content", "is empty"),
    "an empty list of calls": (
        messages(U, turn("assistant", None, tool_calls=[])),
        "messages[1].content",
        "is null",
    ),
    "system in the middle": (
        messages(U, turn("system", "x"), A),
        "messages[1]",
        "comes after others",
    ),
    "two systems": (
        messages(turn("system", "x"), turn("system", "y"), U, A),
        "messages[1]",
        "after others",
    ),
    "the assistant first": (messages(A, U, A), "messages[0]", "is 'assistant'"),
    "a tool first": (messages(turn("tool", "x"), A), "messages[0]", "is 'tool'"),
    "two users in a row": (messages(U, U, A), "messages[1]", "two user turns in a row"),
    "two assistants in a row": (messages(U, A, A), "messages[2]", "two assistant turns"),
    "the user last": (messages(U, A, U), "messages[2]", "last turn is 'user'"),
    "only a system turn": (messages(turn("system", "x")), "messages[0]", "last turn is 'system'"),
    "a tool turn without a call": (
        messages(U, A, turn("tool", "x"), A),
        "messages[2]",
        "no assistant turn before it calls",
    ),
    "a tool turn after the user's": (
        messages(SYSTEM, U, turn("assistant", HERMES), U, turn("tool", "x"), A),
        "messages[4]",
        "no assistant turn before it calls",
    ),
    "a call that is not closed": (
        hermes('<tool_call>{"name": "weather", "arguments": {}}'),
        "messages[2].content",
        "is not closed",
    ),
    "a call that was not opened": (hermes("x</tool_call>"), "messages[2].content", "not opened"),
    "a call within a call": (
        hermes("<tool_call>" + HERMES),
        "messages[2].content",
        "inside another",
    ),
    "a call that is not JSON": (
        hermes("<tool_call>weather(Oslo)</tool_call>"),
        "messages[2].content",
        "is not JSON",
    ),
    "a call in Python": (
        hermes("<tool_call>{'name': 'weather', 'arguments': {}}</tool_call>"),
        "messages[2].content",
        "looks like Python",
    ),
    "a call that is a list": (
        hermes("<tool_call>[]</tool_call>"),
        "messages[2].content",
        "not a JSON object",
    ),
    "a call without a name": (
        hermes('<tool_call>{"arguments": {}}</tool_call>'),
        "messages[2].content",
        "no 'name'",
    ),
    "a call without arguments": (
        hermes('<tool_call>{"name": "weather"}</tool_call>'),
        "messages[2].content",
        "'arguments' of 'weather' are not",
    ),
    "a call with arguments in a string": (
        hermes('<tool_call>{"name": "weather", "arguments": "{}"}</tool_call>'),
        "messages[2].content",
        "'arguments' of 'weather' are not",
    ),
    "a call to an undeclared tool": (
        hermes('<tool_call>{"name": "wether", "arguments": {}}</tool_call>'),
        "messages[2].content",
        "'wether', which is not declared",
    ),
    "a call, and no tools at all": (
        messages(U, turn("assistant", HERMES)),
        "messages[1].content",
        "not declared",
    ),
    "tools in the system turn that are not JSON": (
        messages(turn("system", "<tools>weather(city)</tools>"), U, A),
        "messages[0].content",
        "<tools> is not JSON",
    ),
    "a tool in the system turn without a name": (
        messages(turn("system", '<tools>[{"x": 1}]</tools>'), U, A),
        "messages[0].content",
        "has no name",
    ),
    "tools that are an object": (messages(U, A, tools={}), "tools", "is an object, not a list"),
    "tools in a string that is not JSON": (messages(U, A, tools="[x"), "tools", "not JSON"),
    "a tool without a name": (messages(U, A, tools=[{}]), "tools[0]", "has no name"),
    "a tool that is a string": (messages(U, A, tools=["weather"]), "tools[0]", "has no name"),
    "a tool declared twice": (
        messages(U, A, tools=[WEATHER, WEATHER]),
        "tools[1]",
        "'weather' is declared twice",
    ),
    "a tool nested too deeply": (
        messages(U, A, tools=[{"name": "x", "parameters": nested(MAX_DEPTH)}]),
        "tools[0]",
        "too deeply",
    ),
    "calls that are an object": (
        messages(U, turn("assistant", None, tool_calls={"x": 1})),
        "messages[1].tool_calls",
        "is an object, not a list",
    ),
    "calls by the user": (
        messages(turn("user", "x", tool_calls=[called({})]), A, tools=[WEATHER]),
        "messages[0].tool_calls",
        "stands in a user turn",
    ),
    "a call that is null": (answered(None), "messages[1].tool_calls[0]", "is null"),
    "a call whose name is a number": (
        answered(called({}, name=1)),
        "messages[1].tool_calls[0]",
        "no 'name'",
    ),
    "arguments that are not JSON": (
        answered(called("{city")),
        "messages[1].tool_calls[0].function.arguments",
        "not JSON",
    ),
    "arguments that are a list": (
        answered(called("[]")),
        "messages[1].tool_calls[0]",
        "are not a JSON object",
    ),
    "arguments nested too deeply": (
        answered(called(nested(MAX_DEPTH + 1))),
        "messages[1].tool_calls[0]",
        "nest deeper",
    ),
    "an id that is a number": (
        answered(called({}, id=7)),
        "messages[1].tool_calls[0].id",
        "is a number",
    ),
    "one id for two calls": (
        answered(called({}, id="a"), called({}, id="a")),
        "messages[1].tool_calls[1].id",
        "another call",
    ),
    "an undeclared tool in tool_calls": (
        answered(called({}, name="time")),
        "messages[1].tool_calls[0]",
        "'time', which is not",
    ),
    "an answer to another id": (
        messages(
            U,
            turn("assistant", None, tool_calls=[called({}, id="a")]),
            turn("tool", "x", tool_call_id="b"),
            A,
            tools=[WEATHER],
        ),
        "messages[2].tool_call_id",
        "'b' is the id of no open call",
    ),
    "an answer without an id": (
        messages(
            U,
            turn("assistant", None, tool_calls=[called({}, id="a")]),
            turn("tool", "x"),
            A,
            tools=[WEATHER],
        ),
        "messages[2].tool_call_id",
        "is missing",
    ),
    "a call that nothing answers": (
        messages(
            U,
            turn("assistant", None, tool_calls=[called({}, id="a"), called({}, id="b")]),
            turn("tool", "x", tool_call_id="a"),
            A,
            tools=[WEATHER],
        ),
        "messages[1].tool_calls[1]",
        "no tool turn answers",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_row_is_told_with_line_place_and_reason(name: str, tmp_path: Path) -> None:
    line, path, reason = MALFORMED[name]
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    file = data_file(tmp_path / "data.jsonl", GOOD, b"", raw, GOOD)
    first, refused, last = read_rows([file])
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert (first.line, last.line) == (1, 4)
    assert isinstance(refused, RejectedRow)
    assert (refused.uri, refused.line, refused.raw) == (str(file.path), 3, raw)
    found = [(problem.path, problem.reason) for problem in refused.problems]
    assert any(path == where and reason in why for where, why in found), found
    assert all(str(problem).startswith(f"{file.path}:3: ") for problem in refused.as_problems())


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


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd"),
        (b"PAR1\x15", "Parquet"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"[", "one JSON array"),
        (b'{"a": NaN}', "NaN"),
        (b"{'a': 1}", "Python"),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, hint: str, tmp_path: Path) -> None:
    refused = next(read_rows([data_file(tmp_path / "data.jsonl", data)]))
    assert isinstance(refused, RejectedRow)
    assert hint in refused.problems[0].hint


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


@pytest.mark.parametrize(
    "text",
    [
        '<tools>[{"name": "a"}, {"name": "b"}]</tools>',
        '<tools>\n{"name": "a"}\n{"name": "b"}\n</tools>',
        '<tools>{"name": "a"},{"name": "b"}</tools>',
        'Within <tools></tools> tags: <tools>{"name": "a"}</tools> <tools>{"name": "b"}</tools>',
    ],
)
def test_declared_tools_in_every_way_of_writing_them(text: str) -> None:
    assert declared_tools(text) == [{"name": "a"}, {"name": "b"}]


def test_calls_that_are_only_thought_of_are_none(tmp_path: Path) -> None:
    line = messages(U, turn("assistant", "<think>a <tool_call> perhaps?</think>No."))
    [row] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(row, Row)


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


@settings(max_examples=300, deadline=None)
@given(
    line=st.fixed_dictionaries({"messages": st.lists(turns)}, optional={"tools": json_values})
    | json_values
    | st.binary()
)
def test_no_line_makes_the_reader_fail(line: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "data.jsonl"
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    for row in read_rows([data_file(path, raw)]):
        assert isinstance(row, Row) or row.problems
