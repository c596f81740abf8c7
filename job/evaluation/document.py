"""What an evaluation says: figures, tables and examples, from turns and their answers.

    {"rows": turns judged, "turns": turns there were, "repeated": turns left out, as each is the
     same as one of those,
     "not_judged": None or {turns: of them those whose expected answer can't be read, why},
     "base": {measure: {rate, low, high, count, of, groups}}, "adapter": as base,
     "gain": {measure: {rate, low, high}},
     "tools": {name: {of, base, adapter}}, "scenarios": as tools,
     "examples": [{prompt, expected, base, adapter, right, cut_off, tool, scenario}],
     "held_out_sha256": of the judged turns and how they are judged,
     "stopped_by": None or "seconds", "seconds": …}

Secrets in texts and names are masked. Free of torch: answers may come from a server as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from job.choices import TextMatch
from job.dataset import Message, Row, ToolReader, declared, distinct_turns, groups_of
from job.dataset.rows.secrets import mask_secrets
from job.evaluation.calls import (
    Score,
    expected_calls,
    gains,
    score,
    summarize,
)
from job.evaluation.forms import HERMES_ONLY, Form
from job.evaluation.tables import by_scenario, by_tool, label

_EXAMPLES: Final = 20
"""Shown in the report."""
_LONGEST_TEXT: Final = 4000
"""Characters of an example's text."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant turn of the data, which is to be generated from what comes before it."""

    row: Row
    index: int
    """In the row's messages."""
    forms: tuple[Form, ...] = HERMES_ONLY
    """How an answer to it writes calls."""
    says: str | None = None
    """The expected answer as the model is trained to write it; None where no template is known."""

    @property
    def expected(self) -> Message:
        return self.row.messages[self.index]

    @property
    def before(self) -> tuple[Message, ...]:
        return self.row.messages[: self.index]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said."""

    text: str
    """Tool calls as the turn's `forms` write them."""
    cut_off: bool = False
    """It reached the limit of tokens before it ended."""
    judged: Score | None = None
    """Its score, where that can't be told from the text any more, as secrets in it are masked."""


def turns_of(rows: Sequence[Row]) -> list[Turn]:
    """Every assistant turn, in the order of the rows; the same one once (`distinct_turns`)."""
    return [Turn(row, index) for row, index in distinct_turns(rows)]


def repeated(rows: Sequence[Row], turns: Sequence[Turn]) -> int:
    """Turns of `rows` that are not in `turns`, their distinct ones."""
    return sum(len(row.assistant_turns) for row in rows) - len(turns)


def document(
    turns: Sequence[Turn],
    base: Mapping[int, Answer] | None,
    adapter: Mapping[int, Answer],
    *,
    text_match: TextMatch = "off",
    repeated: int = 0,
    not_judged: Mapping[str, Any] | None = None,
    stopped_by: str | None = None,
    seconds: float = 0.0,
) -> dict[str, Any]:
    """Judge the answers, which are given by the turns' numbers; both models have the same ones.

    `not_judged` says of how many turns besides no answer can be told right from wrong, and why.
    """
    numbers = sorted(adapter)
    judged = [turns[number] for number in numbers]
    reader = ToolReader()
    every = groups_of([turn.row for turn in turns])
    groups = [every[number] for number in numbers]

    def scores(answers: Mapping[int, Answer]) -> list[Score]:
        return [judge(turns[number], answers[number], text_match, reader) for number in numbers]

    after = scores(adapter)
    before = None if base is None else scores(base)
    return {
        "rows": len(judged),
        "turns": len(turns) + (not_judged["turns"] if not_judged else 0),
        "repeated": repeated,
        "not_judged": None if not_judged is None else dict(not_judged),
        "base": {} if before is None else summarize(before, groups),
        "adapter": summarize(after, groups),
        "gain": {} if before is None else gains(before, after, groups),
        "tools": by_tool([turn.expected for turn in judged], before, after),
        "scenarios": by_scenario([turn.row for turn in judged], before, after),
        "examples": [
            _example(judged[i], base[numbers[i]] if base else None, adapter[numbers[i]], after[i])
            for i in _worst_first(after)[:_EXAMPLES]
        ],
        "held_out_sha256": _digest(judged, text_match),
        "stopped_by": stopped_by,
        "seconds": round(seconds, 3),
    }


def judge(turn: Turn, answer: Answer, text_match: TextMatch, reader: ToolReader) -> Score:
    """The score of an answer; `reader` is shared by the turns of an evaluation."""
    return answer.judged or score(
        turn.expected,
        answer.text,
        declared(turn.row, reader),
        cut_off=answer.cut_off,
        text_match=text_match,
        forms=turn.forms,
    )


def _digest(turns: Sequence[Turn], text_match: TextMatch) -> str:
    """The same where two evaluations judged the same turns in the same way: what their figures
    need to be compared."""
    digest = hashlib.sha256(text_match.encode())
    for turn in turns:
        asked = [turn.row.tools, turn.row.messages, turn.index]
        digest.update(json.dumps(asked, sort_keys=True).encode() + b"\0")
    return digest.hexdigest()


def _worst_first(scores: Sequence[Score]) -> list[int]:
    """What went wrong is what people look for: unreadable calls, then wrong ones, then the rest."""
    return sorted(range(len(scores)), key=lambda i: (scores[i].right, scores[i].well_formed))


def _example(turn: Turn, base: Answer | None, adapter: Answer, scored: Score) -> dict[str, Any]:
    names = sorted({call.name for call in expected_calls(turn.expected)})
    scenario = turn.row.meta.get("scenario")
    return {
        "prompt": _short(_last_text(turn.before)),
        "expected": _short(text_of(turn.expected) if turn.says is None else turn.says),
        "base": None if base is None else _short(base.text),
        "adapter": _short(adapter.text),
        "right": scored.right,
        "cut_off": scored.cut_off,
        "tool": label(", ".join(names)) if names else None,
        "scenario": label(str(scenario)) if isinstance(scenario, str | int | float) else None,
    }


def text_of(message: Message) -> str:
    """The text of a turn and its calls, as a model has to write them."""
    calls = [
        f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"
        for call in message.get("tool_calls") or ()
    ]
    return "\n".join([str(message.get("content") or "")] * bool(message.get("content")) + calls)


def _last_text(messages: Sequence[Message]) -> str:
    asked = [m for m in messages if m["role"] in ("user", "tool")]
    return text_of(asked[-1]) if asked else ""


def _short(text: str) -> str:
    """As it may be shown. Masked first: half a secret is not known for one."""
    text = mask_secrets(text)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
