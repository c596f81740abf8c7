"""Base against adapter on held-out assistant turns: the same prompts and weights, greedily."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from job.dataset import ChatFormat, Message, Row, ToolReader, declared
from job.evaluation.calls import Score, by_tool, score, summarize
from job.evaluation.generate import MAX_NEW_TOKENS, base_model, generate
from job.lifecycle import StopToken

_log = logging.getLogger(__name__)

_EXAMPLES = 20
"""Shown in the report."""
_TOOLS = 50
"""The record has to stay small; the rarest are left out."""


def evaluate(
    model: Any,
    tokenizer: Any,
    chat: ChatFormat,
    rows: Sequence[Row],
    stop: StopToken,
    *,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Generate every assistant turn of `rows` from what comes before it, and score it.

    Returns `{"rows": turns, "base": …, "adapter": …, "tools": …, "examples": […]}`, where each side
    is what `calls.summarize` gives, and `tools` what `calls.by_tool` does; the worst examples come
    first. None if there is nothing to generate. Raises `Stopped`.
    """
    turns = [
        (row, index)
        for row in rows
        for index, message in enumerate(row.messages)
        if message["role"] == "assistant"
    ]
    if not turns:
        return None
    prompts = [chat.prompt(row.messages[:index], row.tools) for row, index in turns]
    expected = [row.messages[index] for row, index in turns]
    limit = _longest_answer(tokenizer, expected)
    _log.info("generating %d held-out turns with the base model and the adapter", len(turns))
    with base_model(model):
        base = generate(model, tokenizer, prompts, stop, max_new_tokens=limit, alive=alive)
    adapter = generate(model, tokenizer, prompts, stop, max_new_tokens=limit, alive=alive)
    reader = ToolReader()
    tools = [declared(row, reader) for row, _ in turns]
    base_scores = [score(*judged) for judged in zip(expected, base, tools, strict=True)]
    scores = [score(*judged) for judged in zip(expected, adapter, tools, strict=True)]
    return {
        "rows": len(turns),
        "base": summarize(base_scores),
        "adapter": summarize(scores),
        "tools": dict(islice(by_tool(expected, base_scores, scores).items(), _TOOLS)),
        "examples": [
            {
                "prompt": _last_user_text(*turns[i]),
                "expected": _text_of(expected[i]),
                "base": base[i],
                "adapter": adapter[i],
                "right": _is_right(scores[i]),
            }
            for i in _worst_first(scores)[:_EXAMPLES]
        ],
    }


def _worst_first(scores: Sequence[Score]) -> list[int]:
    """What went wrong is what people look for: unreadable calls, then wrong ones, then the rest."""
    return sorted(range(len(scores)), key=lambda i: (_is_right(scores[i]), scores[i].well_formed))


def _is_right(score: Score) -> bool:
    return score.exact if score.expects_call else score.refused_rightly


def _longest_answer(tokenizer: Any, expected: Sequence[Message]) -> int:
    """Tokens an answer may have: half more than the longest right one needs.

    A model that never stops, as bases often do, is wrong by then and would cost the most time.
    """
    texts = [_text_of(message) for message in expected]
    longest = max(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    return min(MAX_NEW_TOKENS, longest + longest // 2 + 16)


def _last_user_text(row: Row, index: int) -> str:
    users = [m for m in row.messages[:index] if m["role"] in ("user", "tool")]
    return _text_of(users[-1]) if users else ""


def _text_of(message: Message) -> str:
    return str(message.get("content") or message.get("tool_calls") or "")
