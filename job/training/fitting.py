"""A micro-batch that fits the GPU, found before the first step.

The longest conversations that a micro-batch can meet go forward and backward once, within the real
loop, with room kept for the optimizer's state. Where memory runs out the micro-batch is halved and
the accumulation grows, so that an optimizer step sees the same conversations. Nothing of the try
is left: neither gradients nor random state nor what the trainer has counted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from job.dataset import Samples
from job.engines import is_out_of_memory
from job.memory import optimizer_bytes
from job.profiles import Hyperparameters
from job.ranks import ALONE, Ranks
from job.training.randomness import random_state, restore_random_state


@dataclass(frozen=True)
class Fit:
    """A micro-batch, and what the longest one took."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    peak_bytes: int = 0
    """Of the try, on the GPU; 0 where nothing was tried."""

    def applied(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Those values instead of the given ones; nothing where the product isn't the same."""
        size = self.per_device_train_batch_size * self.gradient_accumulation_steps
        if size != hyperparameters.effective_batch_size:
            return hyperparameters
        return replace(
            hyperparameters,
            per_device_train_batch_size=self.per_device_train_batch_size,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
        )


class TooLarge(Exception):
    """The longest micro-batch does not fit. Holds no tensors, so that memory can be given back."""


def smaller(batch_size: int, accumulation: int) -> Fit | None:
    """At most half of the micro-batch, of the same product; None below 1."""
    product = batch_size * accumulation
    for size in range(batch_size // 2, 0, -1):
        if product % size == 0:
            return Fit(size, product // size)
    return None


def memory_is_limited() -> bool:
    """Whether a try says anything: running out of a CPU's memory is no error, it is a kill."""
    return torch.cuda.is_available()


class TryOut(TrainerCallback):  # type: ignore[misc]
    """Tries the longest micro-batch when the loop begins, where everything is as in a step."""

    def __init__(
        self,
        samples: Samples,
        optim: str,
        on_fitted: Callable[[Fit], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self.trainer: Any = None
        """Set once the trainer is built, which needs its callbacks first."""
        self._samples = samples
        self._optim = optim
        self._on_fitted = on_fitted
        self._ranks = ranks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises `TooLarge`."""
        if not memory_is_limited():
            return
        rows = _longest(self._samples, args.per_device_train_batch_size)
        peak, found = 0, ""
        with _untouched(self.trainer):
            try:
                peak = self._peak_bytes(rows)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                found = str(error).partition("\n")[0]
        every = self._ranks.all_gather(bool(found), peak)
        if any(failed for failed, _ in every):  # here: the error's frames hold the tensors
            raise TooLarge(found or "it does not fit the GPU of another rank")
        peak = max(peaks for _, peaks in every)
        size, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
        self._on_fitted(Fit(size, accumulation, peak))

    def _peak_bytes(self, rows: Sequence[dict[str, Any]]) -> int:
        _reset_peak()
        room = _room_for_the_optimizer(self.trainer, self._optim)
        self.trainer.try_out(list(rows))
        del room
        return _peak()


def shrink(trainer: Any, fit: Fit) -> None:
    """Have the trainer's next loop use `fit`: the Trainer reads these when a loop begins."""
    args = trainer.args
    args.per_device_train_batch_size = fit.per_device_train_batch_size
    args.per_device_eval_batch_size = fit.per_device_train_batch_size
    args.gradient_accumulation_steps = fit.gradient_accumulation_steps
    trainer._train_batch_size = args.train_batch_size
    trainer.optimizer = trainer.lr_scheduler = None  # made anew, for the loop begins anew
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _longest(samples: Samples, count: int) -> list[dict[str, Any]]:
    tokens = samples.store.rows["tokens"][samples.indices]
    longest = np.argsort(tokens, kind="stable")[::-1][:count]
    found = [samples[int(index)] for index in longest]
    return [{"input_ids": s.input_ids.tolist(), "labels": s.labels.tolist()} for s in found]


def _room_for_the_optimizer(trainer: Any, optim: str) -> Any:
    """Its state comes with the first step, after the try; not where a checkpoint has brought it.

    It lies beside what is trained: on a card that is tight Unsloth leaves embeddings, which come
    first, to the host."""
    if getattr(trainer.optimizer, "state", None):
        return None
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    size = round(sum(p.numel() for p in trained) * optimizer_bytes(optim))
    return torch.empty(size, dtype=torch.uint8, device=trained[0].device)


@contextmanager
def _untouched(trainer: Any) -> Iterator[None]:
    """What the try changes is put back."""
    randomness = random_state()
    counted = getattr(trainer, "_total_train_tokens", 0)
    try:
        yield
    finally:
        trainer.model.zero_grad(set_to_none=True)
        trainer._total_train_tokens = counted
        if metrics := getattr(trainer, "_metrics", None):
            metrics["train"].clear()
        restore_random_state(randomness)


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
