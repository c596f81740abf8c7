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
from job.evaluation.document import (
    Answer,
    Turn,
    document,
    judge,
    repeated,
    text_of,
    turns_of,
)
from job.evaluation.generate import (
    MAX_NEW_TOKENS,
    base_model,
    batches,
    generate,
    generating,
    weights_sha256,
)
from job.lifecycle import StopToken

_log = logging.getLogger(__name__)

_THINK: Final = "<think>"


@dataclass(frozen=True)
class Bounds:
    """What an evaluation may cost, and what it judges."""

    seconds: float = 0.0
    """Of all attempts together; 0 for no bound."""
    text_match: TextMatch = "off"


class Plan:
    """The turns as tokens, and the batches that they are answered in."""

    def __init__(self, tokenizer: Any, chat: ChatFormat, turns: Sequence[Turn]) -> None:
        prompts = [chat.prompt(turn.before, turn.row.tools) for turn in turns]
        self.thinks = [prompt.rstrip().endswith(_THINK) for prompt in prompts]
        """The prompt has begun the thinking that the answer goes on with."""
        self.tokens: list[list[int]] = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        self.max_new_tokens = _longest_answer(tokenizer, turns)
        self.batches = batches([len(ids) for ids in self.tokens], self.max_new_tokens)

    def key(self, model: Any, made_with: str, text_match: TextMatch) -> str:
        tokens = hashlib.sha256(repr(self.tokens).encode()).hexdigest()
        return key_of(weights_sha256(model), tokens, self.max_new_tokens, made_with, text_match)

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
    turns = turns_of(rows)
    if not turns:
        return None
    keeper = keeper or Nowhere()
    plan = Plan(tokenizer, chat, turns)
    reader = ToolReader()
    answers = Answers.resumed(
        plan.key(model, made_with, bounds.text_match),
        keeper,
        lambda number, answer: judge(turns[number], answer, bounds.text_match, reader),
    )
    same = repeated(rows, turns)
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
    turns = turns_of(rows)
    if not turns:
        return {}
    plan = Plan(tokenizer, chat, turns)
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
    found: dict[str, dict[str, float]] = document(turns, None, answers, text_match=text_match)[
        "adapter"
    ]
    return found


def _longest_answer(tokenizer: Any, turns: Sequence[Turn]) -> int:
    """Tokens an answer may have: half more than the longest right one needs.

    A model that never stops, as bases often do, is wrong by then and would cost the most time.
    """
    texts = [text_of(turn.expected) for turn in turns]
    longest = max(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    return min(MAX_NEW_TOKENS, longest + longest // 2 + 16)
