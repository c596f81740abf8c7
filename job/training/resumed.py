"""What a checkpoint restores and must not decide: the settings are the present attempt's.

The Trainer restores learning rate, schedule, weight decay, patience and how often it evaluates and
saves, as they were. A change of them that was accepted would be recorded and not be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback

from job.ledger import Difference


@dataclass(frozen=True)
class Resume:
    """From where training goes on, and what has changed since."""

    path: Path
    """A checkpoint's folder."""
    expected_loss: float | None = None
    """Of the first micro-batch after it, as it was before; None where that was not noted."""
    accepted: Sequence[Difference] = ()
    """What this attempt does otherwise than the one before."""
    validation_changed: bool = False
    """The checkpoint's validation losses are of something else."""


@contextmanager
def own_schedule(optimizer: Any, scheduler: Any) -> Iterator[None]:
    """Whatever is loaded inside, the next step is made with the rate and decay of the settings.

    How far the schedule is stays loaded. Without a change nothing changes, to the last bit: the
    rate is the same product of the same numbers.
    """
    peaks = list(scheduler.base_lrs)
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    yield
    shares = [shape(scheduler.last_epoch) for shape in scheduler.lr_lambdas]
    for group, peak, share, decay in zip(
        optimizer.param_groups, peaks, shares, decays, strict=True
    ):
        group.update(initial_lr=peak, lr=peak * share, weight_decay=decay)
    scheduler.base_lrs = peaks
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]


@contextmanager
def own_intervals(trainer: Any, *, validation_changed: bool) -> Iterator[None]:
    """As `own_schedule`, for the loop: when to evaluate, to save, and to lose patience.

    With `validation_changed` the losses so far are of something else, and none is the best.
    """
    patience = [callback.early_stopping_patience for callback in _early_stoppings(trainer)]
    yield
    for callback, evaluations in zip(_early_stoppings(trainer), patience, strict=True):
        callback.early_stopping_patience = evaluations
        if validation_changed:
            callback.early_stopping_patience_counter = 0
    state = trainer.state
    state.compute_steps(trainer.args, state.max_steps)
    if validation_changed:
        state.best_metric = state.best_global_step = None


def _early_stoppings(trainer: Any) -> list[Any]:
    callbacks = trainer.callback_handler.callbacks
    return [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]


def lost_patience(state: Any, patience: int, *, validation_changed: bool) -> bool:
    """Whether a run that early stopping has ended would have been ended by the present settings."""
    stored = state.stateful_callbacks.get("EarlyStopping", {})
    counted = stored.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return bool(0 < patience <= counted) and not validation_changed
