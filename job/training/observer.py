"""What training tells the rest of the job, as one Protocol of a few events; and what it asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from job.training.fitting import Fit
from job.training.state import TrainingState


@dataclass(frozen=True)
class Step:
    """An optimizer step that has just ended."""

    step: int
    epoch: float
    seconds: float
    tokens: int
    """Non-padding tokens of the step."""
    supervised_tokens: int
    samples: int
    micro_batches: int = 1
    gpu_memory: dict[str, int] = field(default_factory=dict)
    """Bytes by kind; empty where there is no GPU."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint folder that lies complete on the work volume."""

    folder: Path
    step: int
    eval_loss: float | None
    write_seconds: float
    next_loss: float | None = None
    """Of the micro-batch after this state, where it was trained before the stop."""


@dataclass(frozen=True)
class Judge:
    """Generates held-out turns with the model as it is in the middle of training."""

    rates: Callable[[], dict[str, float] | None]
    """Share by measure; None where a request to stop cut it off."""
    every: int
    """Validations from one to the next, counted from the first step of the run. The one after the
    last step is left out: the evaluation after training is next."""


class TrainingObserver(Protocol):
    """Called on the training thread: every method returns at once, and none may fail the run."""

    def fitted(self, fit: Fit) -> None:
        """That micro-batch is what this run goes on with: before the first step, and where memory
        ran out later nevertheless."""
        ...

    def began(
        self,
        *,
        step: int,
        max_steps: int,
        state: TrainingState,
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        """The loop starts at `step`; `state` is that of the checkpoint it starts from,
        `history` the Trainer's own log, which grows as it goes."""
        ...

    def alive(self) -> None:
        """A micro-batch (of training or evaluation) ended."""
        ...

    def stepped(self, step: Step) -> None: ...

    def logged(self, *, step: int, epoch: float, logs: dict[str, float]) -> None:
        """What the Trainer logs: loss, grad_norm, learning_rate, or eval_loss. One that is not
        finite as well, before the run ends for it."""
        ...

    def saved(self, saved: Saved) -> None:
        """Takes over the folder."""
        ...

    def continued(self, *, step: int, loss: float) -> None:
        """The first micro-batch after the checkpoint of `step` had that loss."""
        ...

    def resumed(self, *, step: int, loss: float, expected: float) -> None:
        """The first micro-batch after resuming at `step`, beside what was recorded for it."""
        ...
