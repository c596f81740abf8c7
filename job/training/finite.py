"""Ends training whose numbers are not finite, before the step that made them so is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from job.errors import Diverged, Problem

MOST_SKIPPED: Final = 32
"""Steps in a row. The scaler of fp16 begins at 65536 = 2^16 and halves at each step that overflows
(torch.amp.GradScaler): after sixteen it multiplies by one, so that what still is not finite was so
before it. Twice that, since a scaler that has worked may have doubled since."""


class FiniteSteps:
    """Looks at what the Trainer logs for each step."""

    def __init__(self) -> None:
        self._skipped = 0

    def check(self, step: int, logs: Mapping[str, float], *, skipped: bool) -> None:
        """Raises `Diverged`. A step's loss is of the weights before it, so what it has made of
        them its gradient says; where fp16's scaler has `skipped` the update, nothing."""
        for name in ("loss", "eval_loss") if skipped else ("loss", "eval_loss", "grad_norm"):
            if name in logs and not math.isfinite(logs[name]):
                raise _diverged(step, f"{name} is {logs[name]}")
        if "loss" in logs:
            self._skipped = self._skipped + 1 if skipped else 0
        if self._skipped >= MOST_SKIPPED:
            raise _diverged(
                step, f"no gradient of {self._skipped} steps was finite, so none changed a weight"
            )


def _diverged(step: int, found: str) -> Diverged:
    return Diverged(
        Problem(
            f"step {step}",
            found,
            "lower FORGE_LEARNING_RATE, lengthen the warm-up, look at the data around this step; "
            "earlier checkpoints are kept",
        )
    )
