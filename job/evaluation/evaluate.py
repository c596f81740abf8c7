"""Base against adapter on held-out assistant turns: the same prompts and weights, greedily."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from job.choices import TextMatch
from job.dataset import ChatFormat, Row, ToolReader
from job.errors import Preempted
from job.evaluation.answers import SAVE_SECONDS, Answers, Keeper, Nowhere, key_of
from job.evaluation.document import Answer, document, judge
from job.evaluation.generate import (
    base_model,
    batches,
    generate,
    generating,
    weights_sha256,
)
from job.evaluation.reading import Reading, read_turns
from job.lifecycle import StopToken

_log = logging.getLogger(__name__)

_THINK: Final = "<think>"
_DECODED: Final = "with special tokens"
"""How answers are made text; those that were kept of another way are none."""


@dataclass(frozen=True)
class Bounds:
    """What an evaluation may cost, and what it judges."""

    seconds: float = 0.0
    """Of all attempts together; 0 for no bound."""
    text_match: TextMatch = "off"


class Plan:
    """The turns as tokens, and the batches that they are answered in."""

    def __init__(self, tokenizer: Any, chat: ChatFormat, reading: Reading) -> None:
        prompts = [chat.prompt(turn.before, turn.row.tools) for turn in reading.turns]
        self.thinks = [prompt.rstrip().endswith(_THINK) for prompt in prompts]
        """The prompt has begun the thinking that the answer goes on with."""
        self.tokens: list[list[int]] = (
            tokenizer(prompts, add_special_tokens=False)["input_ids"] if prompts else []
        )
        self.max_new_tokens = reading.max_new_tokens
        self.batches = batches([len(ids) for ids in self.tokens], self.max_new_tokens)

    def key(self, model: Any, made_with: str, text_match: TextMatch) -> str:
        tokens = hashlib.sha256(repr(self.tokens).encode()).hexdigest()
        parts = (tokens, self.max_new_tokens, made_with, text_match, _DECODED)
        return key_of(weights_sha256(model), *parts)

    def answered(self, batch: Sequence[int], answers: Sequence[Answer]) -> list[Answer]:
        return [
            replace(answer, text=_THINK + answer.text) if self.thinks[number] else answer
            for number, answer in zip(batch, answers, strict=True)
        ]


def evaluate(
    model: Any,
    tokenizer: Any,
    chat: ChatFormat,
    rows: Sequence[Row],
    stop: StopToken,
    *,
    alive: Callable[[], None] = lambda: None,
    bounds: Bounds = Bounds(),
    keeper: Keeper | None = None,
    made_with: str = "",
) -> dict[str, Any] | None:
    """Generate every assistant turn of `rows` from what comes before it, and score it.

    Each batch is answered by the base model and by the adapter before the next one, so that time
    that ends leaves the same turns of both. What `keeper` holds of an earlier attempt is not made
    again, if weights, prompts and `made_with` (whatever else answers depend on) are the same.

    Returns what `job.evaluation.document` describes; None if there is nothing to generate. Raises
    `Stopped` within a token of a request.
    """
    reading = read_turns(chat, rows)
    turns = reading.turns
    if not turns and not reading.unread:
        return None
    keeper = keeper or Nowhere()
    plan = Plan(tokenizer, chat, reading)
    reader = ToolReader()
    answers = Answers.resumed(
        plan.key(model, made_with, bounds.text_match),
        keeper,
        lambda number, answer: judge(turns[number], answer, bounds.text_match, reader),
    )
    same = reading.repeated(rows)
    more = f" ({same} more are the same as one of them)" if same else ""
    _log.info("generating %d held-out turns with base model and adapter%s", len(turns), more)

    def over() -> bool:
        return 0 < bounds.seconds <= answers.seconds

    def ask(batch: Sequence[int]) -> list[Answer] | None:
        made = generate(
            model,
            tokenizer,
            [plan.tokens[number] for number in batch],
            max_new_tokens=plan.max_new_tokens,
            halts=lambda: stop.requested or over(),
            alive=alive,
        )
        stop.check()
        return None if made is None else plan.answered(batch, made)

    def answer_all() -> None:
        for batch in plan.batches:
            if answers.adapter.keys() >= set(batch):
                continue
            stop.check()
            with base_model(model):
                base = None if over() else ask(batch)
            adapter = None if base is None else ask(batch)
            if base is None or adapter is None:
                break
            answers.add(batch, base, adapter)
            answers.save(keeper, every=SAVE_SECONDS)

    with generating(model, tokenizer):
        try:
            answer_all()
        except Preempted:
            with stop.deferred():
                answers.save(keeper)
            raise
    whole = len(answers.adapter) == len(turns)
    if not whole:
        _log.warning(
            "FORGE_EVAL_MAX_SECONDS is over: %d of %d held-out turns are judged",
            len(answers.adapter),
            len(turns),
        )
    return document(
        turns,
        answers.base,
        answers.adapter,
        text_match=bounds.text_match,
        repeated=same,
        not_judged=reading.not_judged,
        stopped_by=None if whole else "seconds",
        seconds=answers.seconds,
    )


def judge_adapter(
    model: Any,
    tokenizer: Any,
    chat: ChatFormat,
    rows: Sequence[Row],
    halts: Callable[[], bool],
    *,
    alive: Callable[[], None] = lambda: None,
    text_match: TextMatch = "off",
) -> dict[str, dict[str, float]] | None:
    """As `evaluate`, in the middle of training: the adapter alone, nothing kept.

    Measure → rate and interval, as in the document; empty where there is nothing to generate. None
    within a token of when `halts` says so.
    """
    reading = read_turns(chat, rows)
    if not reading.turns:
        return {}
    plan = Plan(tokenizer, chat, reading)
    answers: dict[int, Answer] = {}
    with generating(model, tokenizer):
        for batch in plan.batches:
            made = generate(
                model,
                tokenizer,
                [plan.tokens[number] for number in batch],
                max_new_tokens=plan.max_new_tokens,
                halts=halts,
                alive=alive,
            )
            if made is None:
                return None
            answers.update(zip(batch, plan.answered(batch, made), strict=True))
    made_of = document(reading.turns, None, answers, text_match=text_match)
    found: dict[str, dict[str, float]] = made_of["adapter"]
    return found
