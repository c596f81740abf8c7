"""Tool answers that have their `<tool_response>` tags in the data, as Hermes rows do."""

from __future__ import annotations

from typing import Final

import pytest

from job.dataset import ChatFormat, Row, RowRefused
from job.dataset.tokens.results import bare_results
from job.families import FAMILIES as MODEL_FAMILIES
from tests.dataset.conversations import HERMES_SYSTEM, rows, said, user, written
from tests.dataset.standin import PLAIN_CHATML, turn
from tests.dataset.standin_families import FAMILIES, chat_of

RESULT: Final = '{"sky": "clear"}'
CALLS: Final = written("weather", city="Oslo") + "\n" + written("weather", city="Roma")
R1: Final = MODEL_FAMILIES["deepseek-r1"].chat_template()


def tagged(*answers: str) -> str:
    return "\n".join(f"<tool_response>\n{answer}\n</tool_response>" for answer in answers)


def asked(*results: str, last: str = "Clear.") -> Row:
    return rows(
        {
            "row": {
                "messages": [
                    HERMES_SYSTEM,
                    user("oslo"),
                    said(CALLS),
                    *(turn("tool", result) for result in results),
                    said(last),
                ]
            }
        }
    )["row"]


@pytest.mark.parametrize(
    "chat",
    [
        pytest.param(chat_of(FAMILIES["qwen2.5"]), id="qwen-2.5"),
        pytest.param(chat_of(FAMILIES["deepseek-r1"], R1), id="deepseek-r1"),
        pytest.param(chat_of(FAMILIES["llama-3.1"]), id="llama-3"),
    ],
)
def test_tags_in_the_data_make_no_difference_to_what_is_read_and_trained(chat: ChatFormat) -> None:
    bare, one = asked(RESULT, '"rain"'), asked(tagged(RESULT), tagged('"rain"'))
    together = asked(tagged(RESULT, '"rain"'))
    assert chat.render(one) == chat.render(bare) == chat.render(together)
    served = [chat.prompt(row.messages[:-1], row.tools) for row in (bare, one, together)]
    assert served == [chat.render(bare).text[: chat.render(bare).spans[-1][0]]] * 3
    assert chat.render(bare).text.count("<tool_response>") in (0, 2)


def test_a_template_that_adds_no_tags_shows_those_of_the_data() -> None:
    chat = chat_of(FAMILIES["smollm2"], PLAIN_CHATML)
    row = asked(tagged(RESULT))
    assert tagged(RESULT) in chat.render(row).text
    assert tagged(RESULT) in chat.prompt(row.messages[:-1], row.tools)


def test_a_refusal_names_the_turn_of_the_data() -> None:
    chat = chat_of(FAMILIES["qwen2.5"])
    [refused] = chat.render_all([asked(tagged(RESULT, "2"), last="Clear.<|im_end|>")])
    assert isinstance(refused, RowRefused)
    assert refused.problem.path == "messages[4].content"


@pytest.mark.parametrize(
    ("content", "answers"),
    [
        (RESULT, [RESULT]),
        (tagged(RESULT), [RESULT]),
        (f"\n {tagged('')} ", [""]),
        (tagged("1") + tagged("2"), ["1", "2"]),
        ("see: " + tagged("1"), ["see: " + tagged("1")]),
        (tagged("1") + " and", [tagged("1") + " and"]),
        ("<tool_response>1", ["<tool_response>1"]),
    ],
)
def test_only_whole_turns_of_tags_are_taken_apart(content: str, answers: list[str]) -> None:
    found = bare_results([turn("user", tagged("x")), turn("tool", content)])
    assert found[0]["content"] == tagged("x")
    assert [message["content"] for message in found[1:]] == answers


def test_answers_of_several_calls_are_not_given_one_id() -> None:
    both = turn("tool", tagged("1", "2"), tool_call_id="a")
    assert bare_results([both]) == [both]
    assert bare_results([turn("tool", tagged("1"), tool_call_id="a")]) == [
        turn("tool", "1", tool_call_id="a")
    ]
