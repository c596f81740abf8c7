"""What the document says: which figures can be compared (`held_out_sha256`), and no secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from job.dataset import Row, ToolReader, groups_of
from job.evaluation.answers import Answers
from job.evaluation.document import Answer, document, judge, repeated, turns_of
from job.evaluation.intervals import wilson
from tests.evaluation.test_evaluate import Kept

SECRET = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6"


def a_row(question: str, uri: str = "a.jsonl", line: int = 1, **more: Any) -> Row:
    asked = {"role": "user", "content": question}
    return Row(uri, line, (asked, {"role": "assistant", "content": "Yes."}), **more)


def digest(*rows: Row, answered: int | None = None, **how: Any) -> str:
    turns = turns_of(rows)
    count = len(turns) if answered is None else answered
    answers = {number: Answer("No.") for number in range(count)}
    return str(document(turns, answers, answers, **how)["held_out_sha256"])


def test_the_same_turns_are_the_same_wherever_they_stand() -> None:
    here = a_row("Is it?"), a_row("Was it?", line=2)
    moved = a_row("Is it?", uri="b.jsonl", line=9), a_row("Was it?", uri="c.jsonl")
    assert digest(*here) == digest(*moved)


def test_whatever_changes_what_is_judged_changes_it() -> None:
    rows = a_row("Is it?"), a_row("Was it?")
    tool = {"type": "function", "function": {"name": "look"}}
    others = [
        digest(a_row("Is it?"), a_row("Will it?")),
        digest(rows[0]),
        digest(*rows, answered=1, stopped_by="seconds"),
        digest(*rows, text_match="exact"),
        digest(a_row("Is it?", tools=[tool]), rows[1]),
    ]
    assert digest(*rows, answered=1) == digest(rows[0])
    assert digest(*rows) not in others


def test_the_same_turn_is_judged_once() -> None:
    """Forty copies of two turns are no eighty turns: a lower bound would come out at 95%."""
    rows = [a_row(question, line=n) for n in range(40) for question in ("Is it?", "Was it?")]
    turns = turns_of(rows)
    assert [turn.row.line for turn in turns] == [0, 0]
    right = {0: Answer("Yes."), 1: Answer("Yes.")}
    found = document(turns, None, right, text_match="exact", repeated=repeated(rows, turns))
    assert (found["rows"], found["turns"], found["repeated"]) == (2, 2, 78)
    assert found["adapter"]["text_match"]["of"] == 2
    assert found["adapter"]["text_match"]["low"] < 0.5


def test_turns_that_differ_in_anything_are_judged_each() -> None:
    tool = {"type": "function", "function": {"name": "look"}}
    other = a_row("Is it?")
    other.messages = (other.messages[0], {"role": "assistant", "content": "No."})
    assert len(turns_of([a_row("Is it?"), a_row("Is it?", tools=[tool]), other])) == 3


def test_conversations_that_part_share_the_turns_before() -> None:
    begun = a_row("Is it?")
    went_on = a_row("Is it?")
    went_on.messages += ({"role": "user", "content": "Was it?"}, begun.messages[1])
    assert [(turn.row is begun, turn.index) for turn in turns_of([begun, went_on])] == [
        (True, 1),
        (False, 3),
    ]


def test_ids_of_calls_make_no_other_turn() -> None:
    def called(number: str) -> Row:
        row = a_row("Is it?")
        call = {"id": number, "type": "function", "function": {"name": "look", "arguments": {}}}
        answer = {"role": "tool", "content": "It is.", "tool_call_id": number}
        asked = {"role": "assistant", "content": None, "tool_calls": [call]}
        row.messages = (row.messages[0], asked, answer, row.messages[1])
        return row

    assert len(turns_of([called("a"), called("b")])) == 2


def with_secrets() -> list[Row]:
    """Turns that can't be judged by masked texts: a call's token has to fit a pattern."""
    token = {"type": "string", "pattern": "^ghp_"}
    parameters = {"type": "object", "properties": {"token": token}}
    tool = {"type": "function", "function": {"name": "login", "parameters": parameters}}
    return [
        a_row(f"Is {SECRET} mine?", tools=[tool], meta={"scenario": SECRET}),
        a_row("Is it?", tools=[tool]),
    ]


def called(token: str) -> str:
    call = {"name": "login", "arguments": {"token": token}}
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def test_no_secret_is_shown() -> None:
    rows = with_secrets()
    rows[1].messages = (rows[1].messages[0], {"role": "assistant", "content": called(SECRET)})
    long = "x" * 3990 + " " + SECRET  # cut at 4000 characters it would not be known for a secret
    answers = {0: Answer(f"Yes, {SECRET}"), 1: Answer(long)}
    found = document(turns_of(rows), answers, answers)
    assert SECRET[:8] not in json.dumps(found)
    shown = next(each for each in found["examples"] if each["tool"] is None)
    assert (shown["prompt"], shown["adapter"]) == ("Is *** mine?", "Yes, ***")


def test_answers_with_secrets_are_kept_masked_and_judged_as_they_were() -> None:
    rows = with_secrets()
    rows[1].messages = (rows[1].messages[0], {"role": "assistant", "content": called(SECRET)})
    turns, reader, kept = turns_of(rows), ToolReader(), Kept()

    def scored(number: int, answer: Answer) -> Any:
        return judge(turns[number], answer, "off", reader)

    first = Answers("key", scored)
    wrong = Answer(called(SECRET[:-1] + "7"), cut_off=True)
    first.add([0, 1], [Answer("No."), wrong], [Answer(SECRET), Answer(called(SECRET))])
    whole = document(turns, first.base, first.adapter)
    for _ in range(2):  # what was kept of what was kept is the same
        first.save(kept)
        assert kept.content is not None
        assert SECRET[:8].encode() not in kept.content
        first = Answers.resumed("key", kept, scored)
        assert document(turns, first.base, first.adapter) == whole
    assert whole["adapter"]["exact"]["rate"] == whole["adapter"]["valid_arguments"]["rate"] == 1
    assert whole["base"]["exact"]["rate"] == 0


def test_turns_of_one_conversation_are_no_strangers() -> None:
    """Five conversations of eight turns, all right, are five proofs rather than forty."""
    rows = [a_row(f"{number} of {i}?", line=i) for i in range(5) for number in range(8)]
    together = [a_row(f"0 of {i}?", line=i) for i in range(5)]
    for i, row in enumerate(together):
        row.messages = tuple(m for each in rows[8 * i : 8 * i + 8] for m in each.messages)
    right = dict.fromkeys(range(40), Answer("Yes."))
    apart, found = (
        document(turns_of(of), right, right)["adapter"]["refusal"] for of in (rows, together)
    )
    assert (apart["of"], apart["groups"], found["of"], found["groups"]) == (40, 40, 40, 5)
    assert apart["low"] == pytest.approx(wilson(40, 40)[0])
    assert found["low"] == pytest.approx(wilson(5, 5)[0])


def test_conversations_that_the_split_keeps_together_are_one_group() -> None:
    ids = [{"id": 1}, {"id": 2}, {"id": 1}, {}]
    rows = [a_row(f"Is it {i}?", meta=meta) for i, meta in enumerate(ids)]
    same_prompt = a_row("is  IT 3?")
    groups = groups_of([*rows, same_prompt, rows[0]])
    assert len(set(groups)) == 3
    assert groups[0] == groups[2] == groups[5]
    assert groups[3] == groups[4]
