"""What turns mean together: calls, the answers to them, and what is only warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from job.dataset import RejectedRow
from tests.dataset.standin import WEATHER, turn
from tests.dataset.written import (
    A,
    U,
    accepted,
    call_text,
    called,
    hermes,
    messages,
    read,
    told,
)

OSLO = called({"city": "Oslo"})
IN_TEXT = call_text({"city": "Oslo"})


def openai(*turns: dict[str, Any]) -> dict[str, Any]:
    return messages(U, *turns, tools=[WEATHER])


def calling(*calls: dict[str, Any]) -> dict[str, Any]:
    return turn("assistant", None, tool_calls=list(calls))


def test_parallel_calls_in_the_text_and_one_turn_for_their_answers(tmp_path: Path) -> None:
    answers = "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>"
    for tools in ([turn("tool", answers)], [turn("tool", "1"), turn("tool", "2")]):
        line = hermes([WEATHER], f"{IN_TEXT}\n{IN_TEXT}", *tools, A)
        assert not accepted(tmp_path, line).warnings


def test_a_call_that_nothing_answers_in_the_middle(tmp_path: Path) -> None:
    without_ids = openai(calling(OSLO), U, A)
    [found] = told(accepted(tmp_path, without_ids))
    assert found == ("messages[1]", "no tool turn answers its calls")
    in_text = hermes([WEATHER], IN_TEXT, U, A)
    assert told(accepted(tmp_path, in_text)) == [
        ("messages[2]", "no tool turn answers its calls"),
    ]
    with_ids = openai(calling(OSLO | {"id": "a"}), U, A)
    assert isinstance(read(tmp_path, with_ids), RejectedRow)


def test_a_conversation_may_end_with_a_call(tmp_path: Path) -> None:
    for line in (
        openai(calling(OSLO | {"id": "a"})),
        openai(calling(OSLO)),
        hermes([WEATHER], IN_TEXT),
    ):
        assert not accepted(tmp_path, line).warnings


def test_fewer_answers_than_calls(tmp_path: Path) -> None:
    line = openai(calling(OSLO, OSLO), turn("tool", "1"), A)
    assert told(accepted(tmp_path, line)) == [("messages[1]", "1 tool turns answer its 2 calls")]


def test_calls_twice_without_an_answer_between_are_told_in_place(tmp_path: Path) -> None:
    first, second = OSLO | {"id": "a"}, OSLO | {"id": "b"}
    line = openai(calling(first), turn("tool", "1", tool_call_id="a"), calling(second), U, A)
    assert [path for path, _ in told(read(tmp_path, line))] == ["messages[3].tool_calls[0]"]


def test_an_id_may_come_again_in_a_later_turn(tmp_path: Path) -> None:
    call = OSLO | {"id": "call_0"}
    answer = turn("tool", "1", tool_call_id="call_0")
    line = openai(calling(call), answer, A, U, calling(call), answer, A)
    assert not accepted(tmp_path, line).warnings


def test_an_assistant_may_call_again_right_after_an_answer(tmp_path: Path) -> None:
    line = hermes([WEATHER], IN_TEXT, turn("tool", "1"), turn("assistant", IN_TEXT))
    line["messages"] += [turn("tool", "2"), A]
    assert not accepted(tmp_path, line).warnings


def test_text_and_calls_in_one_turn_are_both_checked(tmp_path: Path) -> None:
    wrong = turn("assistant", call_text({"city": 1}), tool_calls=[called({"city": 2})])
    row = read(tmp_path, openai(wrong))
    assert [path for path, _ in told(row)] == [
        "messages[1].tool_calls[0].function.arguments.city",
        "messages[1].content",
    ]


@pytest.mark.parametrize("block", ["<think>a <tool_call> perhaps</think>\n", ""])
def test_calls_beside_a_thought(block: str, tmp_path: Path) -> None:
    row = accepted(tmp_path, hermes([WEATHER], block + IN_TEXT, turn("tool", "1"), A))
    assert row.dialect == "hermes"
    assert not row.warnings


def test_an_error_names_no_more_than_a_few_tools(tmp_path: Path) -> None:
    tools = [{"name": f"tool_{n}" + "x" * 500} for n in range(50)]
    row = read(tmp_path, hermes(tools, call_text({}, "y" * 5000)))
    assert isinstance(row, RejectedRow)
    [problem] = row.as_problems()
    assert len(str(problem)) < 500


@pytest.mark.parametrize(
    "text",
    [
        '<functioncall> {"name": "weather", "arguments": {}}',
        "<tool_calls>[]</tool_calls>",
        "<TOOL_CALL>{}</TOOL_CALL>",
        "< tool_call >{}</ tool_call >",
        '<tool_call name="weather">{}</tool_calls>',
        f"{IN_TEXT} <function_call>{{}}</function_call>",
    ],
)
def test_what_only_looks_like_a_call_is_warned_of_where_tools_are(
    text: str, tmp_path: Path
) -> None:
    [(path, reason)] = told(accepted(tmp_path, hermes([WEATHER], text)))
    assert path == "messages[2].content"
    assert "which no server reads as a call" in reason
    if IN_TEXT not in text:
        assert not accepted(tmp_path, messages(U, turn("assistant", text))).warnings


@pytest.mark.parametrize("text", ["a < tool", "<tool> and <caller>", IN_TEXT, "<tools_called>"])
def test_other_tags_are_text(text: str, tmp_path: Path) -> None:
    assert not accepted(tmp_path, hermes([WEATHER], text)).warnings


@pytest.mark.parametrize(
    "tool",
    ['{"name": "f", "parameters": {"\\ud83d": 1}}', '{"name": "f", "description": "cut \\ud83d"}'],
)
def test_half_a_character_in_the_tools_of_a_text_is_told(tool: str, tmp_path: Path) -> None:
    row = read(tmp_path, messages(turn("system", f"<tools>{tool}</tools>"), U, A))
    [(path, reason)] = told(row)
    assert path == "messages[0].content"
    assert "is not JSON: it holds half a character" in reason


@pytest.mark.parametrize(("odd", "seen"), [(" ", " "), ("\u200b", "\\u200b"), ("\n", "\\n")])
def test_what_differs_in_nothing_that_can_be_seen_is_told_so_that_it_can(
    odd: str, seen: str, tmp_path: Path
) -> None:
    tool = {"name": "weather", "parameters": {"properties": {"city": {"enum": ["Oslo"]}}}}
    odd_name = call_text({"city": "Oslo"}, "weather" + odd)
    [(_, reason)] = told(read(tmp_path, hermes([tool], odd_name)))
    assert reason == f"calls 'weather{seen}', which is not declared"
    [(_, reason)] = told(read(tmp_path, hermes([tool], call_text({"city": "Oslo" + odd}))))
    assert f'is "Oslo{seen}", but its schema allows "Oslo"' in reason
    answer = turn("tool", "1", tool_call_id="a" + odd)
    [(_, reason), *_] = told(read(tmp_path, openai(calling(OSLO | {"id": "a"}), answer, A)))
    assert reason.startswith(f"'a{seen}' is the id of no open call")
    [(_, reason)] = told(read(tmp_path, messages(turn("user" + odd, "?"), A)))
    assert reason == f"'user{seen}' is not a role"


@pytest.mark.parametrize("piece", [" ", "\n", "<think>"])
def test_the_time_to_look_for_calls_grows_with_the_text_and_not_with_its_square(
    piece: str, tmp_path: Path
) -> None:
    """Otherwise each of these takes a quarter of an hour."""
    text = f"{IN_TEXT} <{piece * (1_000_000 // len(piece))}"
    assert not accepted(tmp_path, hermes([WEATHER], text)).warnings


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
def test_a_turn_of_the_user_that_says_nothing_is_refused(text: str, tmp_path: Path) -> None:
    row = read(tmp_path, messages(U, A, turn("user", text), A))
    assert told(row) == [("messages[2].content", "the user's turn is empty")]
    assert not accepted(tmp_path, messages(turn("system", text), U, A)).warnings
