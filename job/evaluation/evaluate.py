"""Base against adapter on held-out assistant turns: the same prompts and weights, greedily."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from job.choices import TextMatch
from job.dataset import ChatFormat, ToolReader
from job.engines import is_out_of_memory
from job.errors import OutOfGpuMemory, Preempted, Problem
from job.evaluation.answers import SAVE_SECONDS, Answers, Keeper, Nowhere, key_of
from job.evaluation.document import Answer, document, judge
from job.evaluation.generate import (
    base_model,
    batches,
    generate,
    generating,
    weights_sha256,
)
from job.evaluation.reading import Reading
from job.lifecycle import StopToken

_log = logging.getLogger(__name__)

_THINK: Final = "<think>"
_NO_MEMORY: Final = "start the run again on a GPU with more memory: nothing is trained twice"
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


class Generator:
    """A model and the prompts of a plan. To be used inside `generating`."""

    def __init__(self, model: Any, tokenizer: Any, plan: Plan, alive: Callable[[], None]) -> None:
        """`alive` is called with each token."""
        self._model = model
        self._tokenizer = tokenizer
        self._plan = plan
        self._alive = alive

    def answer(self, batch: Sequence[int], halts: Callable[[], bool]) -> list[Answer] | None:
        """The answers to one of the plan's batches; None within a token of when `halts` says so.

        What the card has no memory for at once is asked in halves. Raises `OutOfGpuMemory` where
        that is a single prompt.
        """
        try:
            return self._asked_at_once(batch, halts)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                found = (
                    f"a held-out prompt of {len(self._plan.tokens[batch[0]])} tokens has no room"
                )
                raise OutOfGpuMemory(Problem("GPU", found, _NO_MEMORY)) from error
        # Out here the error's frames, which hold tensors, are gone.
        _log.warning("the card has no memory for %d answers at once: asking for half", len(batch))
        middle = len(batch) // 2
        first = self.answer(batch[:middle], halts)
        rest = None if first is None else self.answer(batch[middle:], halts)
        return None if first is None or rest is None else first + rest

    def _asked_at_once(
        self, batch: Sequence[int], halts: Callable[[], bool]
    ) -> list[Answer] | None:
        made = generate(
            self._model,
            self._tokenizer,
            [self._plan.tokens[number] for number in batch],
            max_new_tokens=self._plan.max_new_tokens,
            halts=halts,
            alive=self._alive,
        )
        return None if made is None else self._plan.answered(batch, made)


@dataclass(frozen=True)
class _Comparison:
    """Base and adapter answer the batches of a plan, the one after the other."""

    model: Any
    plan: Plan
    generator: Generator
    answers: Answers
    keeper: Keeper
    stop: StopToken
    seconds: float
    """As `Bounds.seconds`."""

    def run(self) -> None:
        """Until every batch is answered or time is over. Raises `Stopped`."""
        for batch in self.plan.batches:
            if self.answers.adapter.keys() >= set(batch):
                continue
            self.stop.check()
            with base_model(self.model):
                base = None if self._is_over() else self._ask(batch)
            adapter = None if base is None else self._ask(batch)
            if base is None or adapter is None:
                break
            self.answers.add(batch, base, adapter)
            self.answers.save(self.keeper, every=SAVE_SECONDS)

    def _ask(self, batch: Sequence[int]) -> list[Answer] | None:
        found = self.generator.answer(batch, lambda: self.stop.requested or self._is_over())
        self.stop.check()
        return found

    def _is_over(self) -> bool:
        return 0 < self.seconds <= self.answers.seconds


def evaluate(
    model: Any,
    tokenizer: Any,
    chat: ChatFormat,
    reading: Reading,
    stop: StopToken,
    *,
    alive: Callable[[], None] = lambda: None,
    bounds: Bounds = Bounds(),
    keeper: Keeper | None = None,
    made_with: str = "",
) -> dict[str, Any] | None:
    """Generate every turn of `reading` from what comes before it, and score it.

    Each batch is answered by the base model and by the adapter before the next one, so that time
    that ends leaves the same turns of both. What `keeper` holds of an earlier attempt is not made
    again, if weights, prompts and `made_with` (whatever else answers depend on) are the same.

    Returns what `job.evaluation.document` describes; None if there is nothing to generate. Raises
    `Stopped` within a token of a request.
    """
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
    more = f" ({reading.repeated} more are the same as one of them)" if reading.repeated else ""
    _log.info("generating %d held-out turns with base model and adapter%s", len(turns), more)
    generator = Generator(model, tokenizer, plan, alive)
    comparison = _Comparison(model, plan, generator, answers, keeper, stop, bounds.seconds)
    with generating(model, tokenizer):
        try:
            comparison.run()
        except Preempted:
            with stop.deferred():
                answers.save(keeper)
            raise
    return _document(reading, answers, bounds)


def _document(reading: Reading, answers: Answers, bounds: Bounds) -> dict[str, Any]:
    judged, turns = len(answers.adapter), len(reading.turns)
    if judged < turns:
        message = "FORGE_EVAL_MAX_SECONDS is over: %d of %d held-out turns are judged"
        _log.warning(message, judged, turns)
    return document(
        reading.turns,
        answers.base,
        answers.adapter,
        text_match=bounds.text_match,
        repeated=reading.repeated,
        not_judged=reading.not_judged,
        stopped_by="seconds" if judged < turns else None,
        seconds=answers.seconds,
    )


def judge_adapter(
    model: Any,
    tokenizer: Any,
    chat: ChatFormat,
    reading: Reading,
    halts: Callable[[], bool],
    *,
    alive: Callable[[], None] = lambda: None,
    text_match: TextMatch = "off",
) -> dict[str, dict[str, float]] | None:
    """As `evaluate`, in the middle of training: the adapter alone, nothing kept.

    Measure → rate and interval, as in the document; empty where there is nothing to generate. None
    within a token of when `halts` says so.
    """
    if not reading.turns:
        return {}
    plan = Plan(tokenizer, chat, reading)
    generator = Generator(model, tokenizer, plan, alive)
    answers: dict[int, Answer] = {}
    with generating(model, tokenizer):
        for batch in plan.batches:
            made = generator.answer(batch, halts)
            if made is None:
                return None
            answers.update(zip(batch, made, strict=True))
    made_of = document(reading.turns, None, answers, text_match=text_match)
    found: dict[str, dict[str, float]] = made_of["adapter"]
    return found
