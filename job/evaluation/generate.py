"""Answers to held-out prompts, in batches, greedily: from the adapter and from the base model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from job.lifecycle import StopToken

MAX_NEW_TOKENS = 512
"""Longer than nearly all tool calls; a model that never stops is cut here at the latest."""

_PADDED_TOKENS_PER_BATCH = 8192
"""Prompt and answer tokens, padding included, of a batch: bounds the KV cache."""


class _StopRequested(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation at its next token when the pod is asked to go."""

    def __init__(self, stop: StopToken, alive: Callable[[], None]) -> None:
        self._stop = stop
        self._alive = alive

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._alive()
        return torch.full(
            (input_ids.shape[0],), self._stop.requested, device=input_ids.device, dtype=torch.bool
        )


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    stop: StopToken,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    alive: Callable[[], None] = lambda: None,
) -> list[str]:
    """Answer each prompt (rendered text, ending where the assistant begins).

    Greedy, so that two runs agree. Special tokens are left out of the answers. Raises `Stopped`
    within a token of a request.
    """
    answers = [""] * len(prompts)
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
    criteria = StoppingCriteriaList([_StopRequested(stop, alive)])
    with _generating(model), torch.inference_mode():
        for batch in _batches([len(t) for t in tokens], max_new_tokens):
            stop.check()
            outputs = model.generate(
                **_left_padded([tokens[i] for i in batch], tokenizer.pad_token_id, model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                stopping_criteria=criteria,
            )
            stop.check()
            width = max(len(tokens[i]) for i in batch)
            texts = tokenizer.batch_decode(outputs[:, width:], skip_special_tokens=True)
            for i, text in zip(batch, texts, strict=True):
                answers[i] = text
    return answers


@contextmanager
def base_model(model: Any) -> Iterator[None]:
    """The same weights without the adapter, inside `with`."""
    with model.disable_adapter():
        yield


@contextmanager
def _generating(model: Any) -> Iterator[None]:
    was_training, use_cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        yield
    finally:
        model.config.use_cache = use_cache
        model.train(was_training)


def _batches(lengths: Sequence[int], max_new_tokens: int) -> Iterator[list[int]]:
    """Indices, longest prompts first (so that memory runs out at once if it does)."""
    batch: list[int] = []
    width = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        width = width or lengths[i] + max_new_tokens
        if batch and (len(batch) + 1) * width > _PADDED_TOKENS_PER_BATCH:
            yield batch
            batch, width = [], lengths[i] + max_new_tokens
        batch.append(i)
    if batch:
        yield batch


def _left_padded(rows: list[list[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}
