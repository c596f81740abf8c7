"""Answers to held-out prompts, in batches, greedily: from the adapter and from the base model."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import get_peft_model_state_dict
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from job.evaluation.document import Answer

_PADDED_TOKENS_PER_BATCH: Final = 8192
"""Prompt and answer tokens, padding included, of a batch: bounds the KV cache."""

_SEED: Final = 3407


class _Halt(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation at its next token: when the pod is asked to go, or time is over."""

    def __init__(self, halts: Callable[[], bool], alive: Callable[[], None]) -> None:
        self._halts = halts
        self._alive = alive
        self.halted = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._alive()
        self.halted = self.halted or self._halts()
        return torch.full(
            (input_ids.shape[0],), self.halted, device=input_ids.device, dtype=torch.bool
        )


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    halts: Callable[[], bool] = lambda: False,
    alive: Callable[[], None] = lambda: None,
) -> list[Answer] | None:
    """Answer one batch of prompts (token ids, ending where the assistant begins).

    Greedy, so that two runs agree. The answers go up to the token that ends them; other special
    tokens stay: some models write calls with them. None within a token of when `halts` says so. To
    be called inside `generating`. An answer ends, cut off, where the model has no more positions:
    Unsloth refuses to go beyond them, others answer nonsense.
    """
    room = min(max_new_tokens, _positions(model) - max(map(len, prompts)))
    if room < 1:
        return [Answer("", cut_off=True)] * len(prompts)
    halt = _Halt(halts, alive)
    with torch.inference_mode():
        outputs = model.generate(
            **_left_padded(prompts, tokenizer.pad_token_id, model.device),
            max_new_tokens=room,
            stopping_criteria=StoppingCriteriaList([halt]),
        )
    if halt.halted:
        return None
    answers = outputs[:, max(map(len, prompts)) :].tolist()
    return [_answer(tokenizer, ids, _end_tokens(model, tokenizer)) for ids in answers]


def _answer(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> Answer:
    """What was said up to the first of `ends`. White space is left as the tokens have it: some
    tokenizers' settings would take it out before punctuation, in arguments too."""
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    said = [token for token in ids[:end] if token != tokenizer.pad_token_id]
    text = tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Answer(text, cut_off=end is None)


def _positions(model: Any) -> int:
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


def batches(lengths: Sequence[int], max_new_tokens: int) -> list[list[int]]:
    """Indices of prompts of like length, at most so many that their KV cache stays bounded.

    The batches come in an order that is drawn, always the same for the same lengths: where time
    ends them, those that were made are no shorter than those that were not.
    """
    made = list(_by_length(lengths, max_new_tokens))
    random.Random(_SEED).shuffle(made)  # noqa: S311 - no secret
    return made


def weights_sha256(model: Any) -> str:
    """Of the adapter's weights as they are in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(get_peft_model_state_dict(model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def base_model(model: Any) -> Iterator[None]:
    """The same weights without the adapter, inside `with`."""
    with model.disable_adapter():
        yield


@contextmanager
def generating(model: Any, tokenizer: Any) -> Iterator[None]:
    """Inside `with`, the model generates as the weights alone would have it; after it, it is as it
    was, whatever it was about to do.

    The model's own generation_config.json is left out but for what ends an answer: a repetition
    penalty in it (Qwen has one) makes exact arguments a matter of luck, and is a choice of serving.
    """
    base = model.get_base_model()
    was_training, use_cache = model.training, model.config.use_cache
    kept = [(holder, holder.generation_config) for holder in (model, base)]
    neutral = GenerationConfig(
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=_end_tokens(model, tokenizer),
    )
    model.eval()
    model.config.use_cache = True
    for holder, _ in kept:
        holder.generation_config = neutral
    try:
        yield
    finally:
        for holder, config in kept:
            holder.generation_config = config
        model.config.use_cache = use_cache
        model.train(was_training)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    tokenizers = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return sorted({*own_ends(model), *tokenizers})


def own_ends(model: Any) -> list[int]:
    """The tokens that end an answer by the model's generation_config.json: Llama 3 ends a turn with
    another token than a text."""
    found = getattr(model.generation_config, "eos_token_id", None)
    return [
        int(token) for token in (found if isinstance(found, list) else [found]) if token is not None
    ]


def _by_length(lengths: Sequence[int], max_new_tokens: int) -> Iterator[list[int]]:
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


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}
