"""A tiny real training in this process, and what was seen of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from job.config import Settings
from job.dataset import Sample
from job.engines import Engine, LoadedModel, ReferenceEngine
from job.errors import Preempted
from job.ledger import Difference
from job.lifecycle import StopToken
from job.ranks import ALONE, Ranks
from job.training import (
    Fit,
    Judge,
    Resume,
    Saved,
    Step,
    TrainingData,
    TrainingResult,
    TrainingState,
    train,
)
from tests.stored import stored

SETTINGS: dict[str, Any] = {
    "run_id": "exact",
    "dataset_uri": "/rows.jsonl",
    "output_uri": "/out",
    "profile": "fast_dev",  # 2 × 4: four micro-batches a step
    "max_steps": 12,
    "eval_steps": 5,
    "save_steps": 7,
    "lora_dropout": 0.05,
    "learning_rate": 1e-2,
}


class Killed(BaseException):
    """As SIGKILL: nothing is saved any more."""


@dataclass
class Recorder:
    """Keeps `TrainingObserver`; asks for a stop at the n-th sign of life."""

    stop: StopToken
    stop_at: int | None = None
    cause: BaseException = field(default_factory=lambda: Preempted("test"))
    losses: dict[int, float] = field(default_factory=dict)
    eval_losses: dict[int, float] = field(default_factory=dict)
    saves: list[Saved] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    continuations: dict[int, float] = field(default_factory=dict)
    resumptions: list[tuple[int, float, float]] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    began_at: int = -1
    signs: int = 0

    def fitted(self, fit: Fit) -> None:
        self.fits.append(fit)

    def began(
        self,
        *,
        step: int,
        max_steps: int,
        state: TrainingState,
        history: Sequence[Mapping[str, Any]],
    ) -> None:
        self.began_at = step

    def alive(self) -> None:
        self.signs += 1
        if self.signs == self.stop_at:
            if isinstance(self.cause, Killed):
                raise self.cause
            self.stop.request(self.cause)

    def stepped(self, step: Step) -> None:
        self.steps.append(step)

    def logged(self, *, step: int, epoch: float, logs: dict[str, float]) -> None:
        if "loss" in logs:
            self.losses[step] = logs["loss"]
        if "eval_loss" in logs:
            self.eval_losses[step] = logs["eval_loss"]

    def saved(self, saved: Saved) -> None:
        self.saves.append(saved)

    def continued(self, *, step: int, loss: float) -> None:
        self.continuations[step] = loss

    def resumed(self, *, step: int, loss: float, expected: float) -> None:
        self.resumptions.append((step, loss, expected))


@dataclass(frozen=True)
class Outcome:
    seen: Recorder
    result: TrainingResult | None
    adapter: str
    """SHA-256 of all LoRA weights."""


def made_data(folder: Path) -> TrainingData:
    """30 rows to train on, 6 to evaluate with, of various lengths."""
    chosen = np.random.default_rng(0)

    def sample() -> Sample:
        ids = chosen.integers(3, 500, int(chosen.integers(20, 80))).astype(np.int32)
        labels = ids.copy()
        labels[: len(ids) // 2] = -100
        return Sample(input_ids=ids, labels=labels)

    return TrainingData(
        stored(folder / "train", [sample() for _ in range(30)]),
        stored(folder / "evaluation", [sample() for _ in range(6)]),
    )


def run(
    model: Path,
    data: TrainingData,
    output: Path,
    *,
    stop_at: int | None = None,
    resume_from: Path | None = None,
    cause: BaseException | None = None,
    expected_loss: float | None = None,
    fit: Fit | None = None,
    judging: Callable[[LoadedModel, StopToken], Judge] | None = None,
    ranks: Ranks = ALONE,
    engine: Engine | None = None,
    accepted: Sequence[Difference] = (),
    validation_changed: bool = False,
    on_trained: Callable[[], None] = lambda: None,
    **settings: Any,
) -> Outcome:
    resolved = Settings(**(SETTINGS | settings))
    engine, stop = engine or ReferenceEngine(), StopToken()
    loaded = engine.load(model, resolved.hyperparameters())
    resume = None
    if resume_from is not None:
        resume = Resume(resume_from, expected_loss, accepted, validation_changed)
    seen = Recorder(stop, stop_at, cause or Preempted("test"))
    try:
        result = train(
            engine,
            loaded,
            data,
            resolved,
            seen,
            stop,
            output,
            resume,
            fit,
            judge=judging(loaded, stop) if judging else None,
            ranks=ranks,
            on_trained=on_trained,
        )
    except (Preempted, Killed):
        result = None
    digest = hashlib.sha256()
    for _, parameter in sorted(loaded.model.named_parameters()):
        if parameter.requires_grad:
            digest.update(parameter.detach().numpy().tobytes())
    return Outcome(seen, result, digest.hexdigest())
