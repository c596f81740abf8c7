"""Stopped and killed at random, several times: the run is the one that nobody disturbed."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

import job.training.trainer as trainer
from job.errors import Preempted
from job.training import TrainingData
from tests.training.runs import Killed, Outcome, run

PLANS = int(os.environ.get("FORGE_RANDOM_STOPS", "2"))
"""Of each variant; more on demand. Read here: tests don't see FORGE_ variables."""

VARIANTS: dict[str, dict[str, Any]] = {
    "dropout": {"lora_dropout": 0.05},
    "no dropout, one micro-batch a step": {"lora_dropout": 0, "gradient_accumulation_steps": 1},
    "another optimizer": {"optim": "adamw_torch", "lr_scheduler_type": "cosine"},
    "early stopping": {
        "learning_rate": 0.3,
        "max_steps": 30,
        "eval_steps": 2,
        "early_stopping_patience": 2,
    },
}

Batches = list[str]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """What each step was given, in order."""
    seen: Batches = []
    count = trainer.count

    def noted(given: list[dict[str, Any]]) -> trainer.BatchCounts:
        digest = hashlib.sha256()
        for batch in given:
            digest.update(batch["input_ids"].numpy().tobytes())
        seen.append(digest.hexdigest())
        return count(given)

    monkeypatch.setattr(trainer, "count", noted)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_run_that_nobody_disturbed(
    model: Path, data: TrainingData, tmp_path: Path, batches: Batches, variant: str
) -> None:
    settings = VARIANTS[variant] | {"save_steps": 3}
    whole = run(model, data, tmp_path / "whole", **settings)
    order = list(batches)
    assert whole.result is not None
    for seed in range(PLANS):
        batches.clear()
        _disturbed(model, data, tmp_path / str(seed), settings, seed, whole, order, batches)


def _disturbed(
    model: Path,
    data: TrainingData,
    folder: Path,
    settings: dict[str, Any],
    seed: int,
    whole: Outcome,
    order: Batches,
    batches: Batches,
) -> None:
    chosen = random.Random(seed)
    losses: dict[int, float] = {}
    newest: Path | None = None
    kept: Batches = []
    for attempt in range(12):
        cause = chosen.choice([Preempted("test"), Killed()])
        stop_at = chosen.randint(1, 20) if attempt < 4 else None
        batches.clear()
        output = folder / f"attempt-{attempt}"
        seen = run(
            model, data, output, stop_at=stop_at, cause=cause, resume_from=newest, **settings
        )
        began = max(0, seen.seen.began_at)
        kept = kept[:began] + batches
        losses |= seen.seen.losses
        if seen.result is not None:
            break
        newest = seen.seen.saves[-1].folder if seen.seen.saves else newest
    where = f"seed {seed}"
    assert seen.result is not None, where
    assert whole.result is not None
    assert seen.adapter == whole.adapter, where
    assert losses == whole.seen.losses, where
    assert _evaluations(seen) == _evaluations(whole), where
    assert kept[: whole.result.step] == order[: whole.result.step], where


def _evaluations(outcome: Outcome) -> list[tuple[int, float]]:
    """Those of all attempts: the history goes through the checkpoints."""
    assert outcome.result is not None
    return [
        (entry["step"], entry["eval_loss"])
        for entry in outcome.result.history
        if "eval_loss" in entry
    ]
