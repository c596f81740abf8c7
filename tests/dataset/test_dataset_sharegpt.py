"""Rows with `conversations`: they come out as the messages that an OpenAI row would have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dataset.standin import WEATHER, call, turn
from tests.dataset.written import accepted, call_text, hermes, read, shared, told

HUMAN, GPT = ("human", "Oslo?"), ("gpt", "Sunny.")
CALL = ("function_call", '{"name": "weather", "arguments": {"city": "Oslo"}}')
OSLO = call("weather", city="Oslo")
TOOLS = json.dumps([WEATHER["function"]])


def test_llama_factorys_calls_and_observations(tmp_path: Path) -> None:
    row = accepted(tmp_path, shared(HUMAN, CALL, ("observation", "21"), GPT, tools=TOOLS, id=7))
    assert row.messages == (
        turn("user", "Oslo?"),
        turn("assistant", None, tool_calls=[OSLO]),
        turn("tool", "21"),
        turn("assistant", "Sunny."),
    )
    assert (row.tools, row.meta, row.dialect) == ([WEATHER], {"id": 7}, "sharegpt")


def test_hermes_public_form(tmp_path: Path) -> None:
    written = hermes([WEATHER], call_text({"city": "Oslo"}))["messages"]
    sources = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [(sources[message["role"]], message["content"]) for message in written]
    answer = "<tool_response>\n21\n</tool_response>"
    line = shared(*turns, ("tool", answer), GPT, tools=json.dumps([WEATHER]), category="weather")
    row = accepted(tmp_path, line)
    assert row.messages == (*written, turn("tool", answer), turn("assistant", "Sunny."))
    # Its tools stand in a column as well, which the model must not read a second time.
    assert row.tools is None
    assert row.meta == {"category": "weather"}
    assert [path for path, _ in told(row)] == ["tools"]


def test_text_and_the_calls_after_it_are_one_turn(tmp_path: Path) -> None:
    row = accepted(tmp_path, shared(HUMAN, ("gpt", "I look."), CALL, CALL, tools=TOOLS))
    assert row.messages[1] == turn("assistant", "I look.", tool_calls=[OSLO, OSLO])


@pytest.mark.parametrize(
    "value",
    [
        '[{"name": "weather", "arguments": {"city": "Oslo"}}]',
        '{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}',
        {"name": "weather", "arguments": {"city": "Oslo"}},
        [{"name": "weather", "arguments": {"city": "Oslo"}}],
    ],
)
def test_ways_to_write_a_call(value: Any, tmp_path: Path) -> None:
    row = accepted(tmp_path, shared(HUMAN, ("function_call", value), tools=TOOLS))
    assert row.messages[1] == turn("assistant", None, tool_calls=[OSLO])


def test_parallel_calls_have_an_answer_each(tmp_path: Path) -> None:
    calls = ("function_call", json.dumps([json.loads(CALL[1])] * 2))
    answers = [("observation", "1"), ("observation", "2")]
    row = accepted(tmp_path, shared(HUMAN, calls, *answers, GPT, tools=TOOLS))
    assert [message["role"] for message in row.messages[2:]] == ["tool", "tool", "assistant"]
    assert not row.warnings
    short = accepted(tmp_path, shared(HUMAN, calls, answers[0], GPT, tools=TOOLS))
    assert told(short) == [("conversations[1]", "1 tool turns answer its 2 calls")]


def test_a_system_beside_the_conversation_is_its_first_turn(tmp_path: Path) -> None:
    row = accepted(tmp_path, shared(HUMAN, GPT, system="Be brief."))
    assert row.messages[0] == turn("system", "Be brief.")
    assert row.meta == {}
    for nothing in (None, "", " \n"):
        assert accepted(tmp_path, shared(HUMAN, GPT, system=nothing)).messages[0]["role"] == "user"
    same = accepted(tmp_path, shared(("system", "x"), HUMAN, GPT, system="x"))
    assert [message["role"] for message in same.messages] == ["system", "user", "assistant"]


def test_tools_in_a_system_beside_the_conversation(tmp_path: Path) -> None:
    system = hermes([WEATHER], "")["messages"][0]["content"]
    line = shared(HUMAN, ("gpt", call_text({"city": 3})), system=system)
    assert [path for path, _ in told(read(tmp_path, line))] == ["conversations[1].value"]
    line["system"] = "<tools>weather</tools>"
    assert told(read(tmp_path, line))[0][0] == "system"


def test_role_and_content_inside_conversations(tmp_path: Path) -> None:
    turns = [
        turn("user", "Oslo?", weight=None),
        turn("assistant", "", tool_calls=[OSLO | {"id": "a"}]),
        turn("tool", "21", tool_call_id="a"),
        {"from": "gpt", "value": "Sunny.", "weight": 1},
    ]
    row = accepted(tmp_path, {"conversations": turns, "tools": [WEATHER]})
    assert row.messages == (
        turn("user", "Oslo?"),
        turn("assistant", None, tool_calls=[OSLO | {"id": "a"}]),
        turn("tool", "21", tool_call_id="a"),
        turn("assistant", "Sunny."),
    )
    del turns[2]["tool_call_id"]
    turns[1]["tool_calls"][0]["function"] = {"name": "weather", "arguments": {"city": 1}}
    assert [path for path, _ in told(read(tmp_path, {"conversations": turns, "tools": TOOLS}))] == [
        "conversations[1].tool_calls[0].function.arguments.city",
        "conversations[2].tool_call_id",
        "conversations[1].tool_calls[0]",
    ]


def test_places_are_those_of_the_file_where_turns_were_joined(tmp_path: Path) -> None:
    wrong = ("function_call", '[{"name": "weather", "arguments": {"city": "a"}}, {"name": "time"}]')
    line = shared(HUMAN, ("gpt", "I look."), CALL, wrong, ("observation", "x"), tools=TOOLS)
    assert [path for path, _ in told(read(tmp_path, line))] == ["conversations[3].value[1]"]
    line["conversations"][3]["value"] = '[{"name": "time", "arguments": {}}]'
    assert told(read(tmp_path, line))[:2] == [
        ("conversations[4]", "the last turn is 'tool', so nothing answers it"),
        ("conversations[3].value[0]", "calls 'time', which is not declared"),
    ]


def test_whole_numbers_of_any_size_stay_exact(tmp_path: Path) -> None:
    number = 123456789012345678901234567890
    arguments = {"city": "Oslo", "n": number}
    value = json.dumps({"name": "weather", "arguments": arguments})
    for written in (value, json.loads(value)):
        row = accepted(tmp_path, shared(HUMAN, ("function_call", written), tools=TOOLS))
        assert row.messages[1]["tool_calls"] == [call("weather", **arguments)]
