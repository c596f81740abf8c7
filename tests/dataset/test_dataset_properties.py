"""What holds of every conversation that could be written, in each dialect."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from job.dataset import RejectedRow, Row, read_rows
from tests.dataset.generated import DIALECTS, Conversation, conversations, hermes, openai, sharegpt
from tests.dataset.masks import as_read_by, said_by, stretches
from tests.dataset.standin import data_file
from tests.dataset.standin_families import FAMILIES, chat_format, tokenizer_of

RawRow: TypeAlias = dict[str, Any]

SLOWLY: Final = settings(max_examples=60)


def read(*rows: RawRow) -> list[Row | RejectedRow]:
    with tempfile.TemporaryDirectory() as folder:
        return list(read_rows([data_file(Path(folder) / "data.jsonl", *rows)]))


def accepted(raw: RawRow) -> Row:
    [row] = read(raw)
    assert isinstance(row, Row), row
    return row


def without_ids(row: Row) -> list[dict[str, Any]]:
    messages = copy.deepcopy(list(row.messages))
    for message in messages:
        message.pop("tool_call_id", None)
        for call in message.get("tool_calls", ()):
            call.pop("id", None)
    return messages


@given(conversations())
@SLOWLY
def test_every_dialect_of_a_conversation_is_accepted(conversation: Conversation) -> None:
    for name, written in DIALECTS.items():
        row = accepted(written(conversation))
        assert not [found for found in row.warnings if "secret" not in found.reason], name


@given(conversations())
@SLOWLY
def test_openai_and_sharegpt_rows_are_read_as_the_same_turns(conversation: Conversation) -> None:
    one, other = accepted(openai(conversation)), accepted(sharegpt(conversation))
    assert without_ids(one) == without_ids(other)
    assert one.tools == other.tools


@given(conversations(calling=True))
@SLOWLY
def test_calls_are_read_as_they_were_meant(conversation: Conversation) -> None:
    meant = [(call.name, call.arguments) for call in conversation.calls]
    for written in (openai, sharegpt):
        calls = [
            call["function"]
            for message in accepted(written(conversation)).messages
            for call in message.get("tool_calls", ())
        ]
        read = [(call["name"], call["arguments"]) for call in calls]
        assert json.dumps(read) == json.dumps(meant)


@pytest.mark.parametrize("family", FAMILIES)
@given(conversations(calling=False), st.sampled_from(sorted(DIALECTS)))
@SLOWLY
def test_unmasking_gives_back_what_the_assistant_said(
    family: str, conversation: Conversation, dialect: str
) -> None:
    answers = [each.answer for each in conversation.exchanges]
    # All that stands before it in the turn is trained with it; the markers are no part of it.
    assert trained_in(family, DIALECTS[dialect](conversation), answers) == answers


@pytest.mark.parametrize("family", FAMILIES)
@given(conversations(calling=True))
@SLOWLY
def test_unmasking_gives_back_calls_in_the_text(family: str, conversation: Conversation) -> None:
    row = hermes(conversation)
    said = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    assert trained_in(family, row, said) == said


@pytest.mark.parametrize("family", ["qwen2.5", "llama-3.1"])
@pytest.mark.parametrize("dialect", ["openai", "sharegpt"])
@given(conversations(calling=True))
@SLOWLY
def test_unmasking_gives_back_calls_beside_the_text(
    family: str, dialect: str, conversation: Conversation
) -> None:
    assume(family == "qwen2.5" or not conversation.parallel)
    raw = DIALECTS[dialect](conversation)
    expected = said_by(FAMILIES[family], accepted(raw))
    assert trained(family, raw) == expected


def trained(family: str, raw: RawRow) -> list[str]:
    """The text of each run of trained tokens."""
    chat = chat_format(family)
    [sample] = chat.encode([chat.render(accepted(raw))], "assistant")
    found = stretches(tokenizer_of(FAMILIES[family]), sample)
    return [each.text for each in found if each.trained]


def trained_in(family: str, raw: RawRow, said: list[str]) -> list[str]:
    """What is trained, without the token that ends each turn; as it was before the tokenizer's
    normalizer, where that is all the difference."""
    runs = trained(family, raw)
    assert len(runs) == len(said)
    texts = []
    for run, text in zip(runs, said, strict=True):
        end = next(token for token in FAMILIES[family].special if run.endswith(token))
        body = run.removesuffix(end)
        texts.append(text if body == as_read_by(FAMILIES[family], text) else body)
    return texts


Fault: TypeAlias = Callable[[RawRow, Any], str | None]
"""Spoils a row; where, or `None` if this row can't be spoiled in this way. Draws what it needs."""


def nobody_answers(row: RawRow, draw: Any) -> str:
    row["messages"].pop()
    return f"messages[{len(row['messages']) - 1}]"


def unknown_role(row: RawRow, draw: Any) -> str:
    index = draw(st.integers(0, len(row["messages"]) - 1))
    row["messages"][index]["role"] = "narrator"
    return f"messages[{index}].role"


def content_of_another_type(row: RawRow, draw: Any) -> str:
    index = draw(st.integers(0, len(row["messages"]) - 1))
    row["messages"][index]["content"] = draw(st.sampled_from([3, True, ["text"], {"text": "a"}]))
    return f"messages[{index}].content"


def control_character(row: RawRow, draw: Any) -> str | None:
    texts = [i for i, turn in enumerate(row["messages"]) if turn["role"] in ("user", "assistant")]
    index = draw(st.sampled_from([i for i in texts if row["messages"][i]["content"]]))
    row["messages"][index]["content"] += draw(st.sampled_from("\x00\x07\x1b\x7f"))
    return f"messages[{index}].content"


def two_in_a_row(row: RawRow, draw: Any) -> str:
    index = draw(st.sampled_from(turns(row, "user")))
    row["messages"].insert(index, copy.deepcopy(row["messages"][index]))
    return f"messages[{index + 1}]"


def undeclared_tool(row: RawRow, draw: Any) -> str | None:
    index, call = a_call(row, draw)
    row["messages"][index]["tool_calls"][call]["function"]["name"] = "no_such_tool_here"
    return f"messages[{index}].tool_calls[{call}]"


def arguments_cut(row: RawRow, draw: Any) -> str:
    index, call = a_call(row, draw)
    function = row["messages"][index]["tool_calls"][call]["function"]
    function["arguments"] = function["arguments"][:-1]
    return f"messages[{index}].tool_calls[{call}].function.arguments"


def argument_too_many(row: RawRow, draw: Any) -> str:
    index, call = a_call(row, draw)
    function = row["messages"][index]["tool_calls"][call]["function"]
    function["arguments"] = json.dumps(json.loads(function["arguments"]) | {"longer_name": 1})
    return f"messages[{index}].tool_calls[{call}].function.arguments.longer_name"


def answer_to_nothing(row: RawRow, draw: Any) -> str:
    index = draw(st.sampled_from(turns(row, "tool")))
    row["messages"][index]["tool_call_id"] = "call_of_another_row"
    return f"messages[{index}].tool_call_id"


def unanswered(row: RawRow, draw: Any) -> str:
    index, call = a_call(row, draw)
    del row["messages"][index + 1 + call]
    return f"messages[{index}].tool_calls[{call}]"


def turns(row: RawRow, role: str) -> list[int]:
    return [i for i, turn in enumerate(row["messages"]) if turn["role"] == role]


def a_call(row: RawRow, draw: Any) -> tuple[int, int]:
    """Index of a turn that calls, and of one of its calls."""
    index = draw(st.sampled_from([i for i in turns(row, "assistant") if calls(row, i)]))
    return index, draw(st.integers(0, calls(row, index) - 1))


def calls(row: RawRow, index: int) -> int:
    return len(row["messages"][index].get("tool_calls", ()))


FAULTS: Final[list[Fault]] = [
    *(nobody_answers, unknown_role, content_of_another_type, control_character, two_in_a_row),
    *(undeclared_tool, arguments_cut, argument_too_many, answer_to_nothing, unanswered),
]


@pytest.mark.parametrize("fault", FAULTS)
@given(conversation=conversations(calling=True), data=st.data())
@SLOWLY
def test_one_fault_is_refused_where_it_stands(
    fault: Fault, conversation: Conversation, data: st.DataObject
) -> None:
    raw = openai(conversation)
    path = fault(raw, data.draw)
    good = openai(conversation)
    before, found, after = read(good, raw, good)
    assert isinstance(before, Row)
    assert isinstance(after, Row)
    assert isinstance(found, RejectedRow)
    assert path in [problem.path for problem in found.problems]
