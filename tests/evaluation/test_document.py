"""When figures of two evaluations can be compared: `held_out_sha256`."""

from __future__ import annotations

from typing import Any

from job.dataset import Row
from job.evaluation.document import Answer, document, turns_of


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
