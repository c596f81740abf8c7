"""A change of a setting that was accepted is made, from the step on that the run resumes at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from job.errors import FingerprintMismatch
from job.ledger import Difference
from job.training import TrainingData
from tests.training.runs import Outcome, run

IMPATIENT: dict[str, Any] = {
    "learning_rate": 0.3,  # can't improve the validation loss for long
    "max_steps": 40,
    "eval_steps": 2,
    "save_steps": 50,
    "early_stopping_patience": 2,
}


@pytest.fixture(scope="module")
def halfway(model: Path, data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of step 7, of 12."""
    folder = tmp_path_factory.mktemp("halfway")
    stopped = run(model, data, folder, stop_at=25, weight_decay=0.0)
    return stopped.seen.saves[-1].folder


def rates(outcome: Outcome) -> dict[int, float]:
    assert outcome.result is not None
    logged = outcome.result.history
    return {e["step"]: e["learning_rate"] for e in logged if "learning_rate" in e}


@pytest.fixture(scope="module")
def unchanged(
    model: Path, data: TrainingData, halfway: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    return run(model, data, tmp_path_factory.mktemp("same"), resume_from=halfway, weight_decay=0.0)


def test_another_learning_rate(
    model: Path, data: TrainingData, halfway: Path, unchanged: Outcome, tmp_path: Path
) -> None:
    lower = run(model, data, tmp_path, resume_from=halfway, weight_decay=0.0, learning_rate=1e-3)
    before, after = rates(unchanged), rates(lower)
    assert all(after[step] == before[step] for step in range(1, 8))
    for step in range(8, 13):
        assert after[step] == pytest.approx(before[step] / 10), step


@pytest.mark.parametrize(
    "changed",
    [
        {"lr_scheduler_type": "constant"},
        {"warmup_steps": 10},
        {"max_steps": 40},
    ],
)
def test_another_schedule(
    model: Path,
    data: TrainingData,
    halfway: Path,
    unchanged: Outcome,
    tmp_path: Path,
    changed: dict[str, Any],
) -> None:
    """The very next step has the rate that a run has there which was so from the beginning."""
    other = run(model, data, tmp_path, resume_from=halfway, weight_decay=0.0, **changed)
    whole = run(model, data, tmp_path / "whole", **changed)
    assert rates(other)[8] != rates(unchanged)[8]
    assert {s: r for s, r in rates(other).items() if s > 7} == {
        s: r for s, r in rates(whole).items() if s > 7
    }


def test_another_weight_decay(
    model: Path, data: TrainingData, halfway: Path, unchanged: Outcome, tmp_path: Path
) -> None:
    decayed = run(model, data, tmp_path, resume_from=halfway, weight_decay=0.5)
    assert rates(decayed) == rates(unchanged)
    assert decayed.seen.losses[8] == unchanged.seen.losses[8], "of the weights before its step"
    assert decayed.seen.losses[9] != unchanged.seen.losses[9]


def test_other_intervals(model: Path, data: TrainingData, halfway: Path, tmp_path: Path) -> None:
    often = run(
        model, data, tmp_path, resume_from=halfway, weight_decay=0.0, eval_steps=2, save_steps=3
    )
    assert sorted(often.seen.eval_losses) == [8, 10, 12]
    assert 9 in [saved.step for saved in often.seen.saves]


def test_longer_patience(model: Path, data: TrainingData, tmp_path: Path) -> None:
    """Also for a run that the shorter one has ended, and that was not published yet."""
    short = run(model, data, tmp_path / "short", **IMPATIENT)
    assert short.result is not None
    assert short.result.step < 20
    for number, saved in enumerate((short.seen.saves[0], short.seen.saves[-1])):
        patient = run(
            model,
            data,
            tmp_path / f"long-{number}",
            resume_from=saved.folder,
            **(IMPATIENT | {"early_stopping_patience": 15}),
        )
        assert patient.result is not None
        assert patient.result.step > short.result.step


def test_losses_of_something_else_are_no_reason_to_stop(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    """Nor is one of them the best: the first loss of our own is saved."""
    before = run(model, data, tmp_path / "before", **IMPATIENT)
    assert before.result is not None
    last = before.seen.saves[-1]
    again = run(model, data, tmp_path / "same", resume_from=last.folder, **IMPATIENT)
    assert again.seen.steps == [], "it is over"
    changed = run(
        model,
        data,
        tmp_path / "changed",
        resume_from=last.folder,
        validation_changed=True,
        **(IMPATIENT | {"learning_rate": 1e-9}),
    )
    first = min(changed.seen.eval_losses)
    assert first > last.step
    assert first in [saved.step for saved in changed.seen.saves]


def test_what_comes_after_the_last_step_is_refused(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    whole = run(model, data, tmp_path / "whole")
    last = whole.seen.saves[-1].folder
    other = [Difference("data.0.sha256", "aa", "bb")]
    with pytest.raises(FingerprintMismatch, match="training was over at step 12"):
        run(model, data, tmp_path / "other", resume_from=last, accepted=other)
