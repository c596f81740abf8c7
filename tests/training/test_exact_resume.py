"""A run stopped anywhere and resumed equals one that was never stopped, bit by bit."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.engines import ReferenceEngine
from job.errors import Diverged, Preempted, Unavailable
from job.training import (
    Saved,
    TrainingData,
    TrainingResult,
    TrainingState,
    check_loadable,
    finite,
)
from tests.stored import stored
from tests.tiny import build_model
from tests.training.runs import Outcome, Recorder, run


@pytest.fixture(scope="module")
def uninterrupted(
    model: Path, data: TrainingData, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    return run(model, data, tmp_path_factory.mktemp("whole"))


# Signs of life: 3 a step of training (the last micro-batch ends a step instead), 3 an evaluation.
@pytest.mark.parametrize(
    ("stop_at", "resumes_at"),
    [
        pytest.param(2, None, id="inside the first step: nothing to save"),
        pytest.param(8, 2, id="between micro-batches"),
        pytest.param(16, 5, id="in the first batch of an evaluation"),
        pytest.param(17, 5, id="in the middle of an evaluation"),
        pytest.param(19, 5, id="in the step after an evaluation"),
        pytest.param(25, 7, id="in the step after a checkpoint"),
        pytest.param(26, 8, id="in the first step of an epoch"),
        pytest.param(41, 12, id="in the evaluation after the last step"),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(
    model: Path,
    data: TrainingData,
    uninterrupted: Outcome,
    tmp_path: Path,
    stop_at: int,
    resumes_at: int | None,
) -> None:
    stopped = run(model, data, tmp_path, stop_at=stop_at)
    assert stopped.result is None
    newest = stopped.seen.saves[-1] if stopped.seen.saves else None
    assert (newest.step if newest else None) == resumes_at

    noted = None
    if newest:
        noted = newest.next_loss or stopped.seen.continuations.get(newest.step)
    resumed = run(
        model,
        data,
        tmp_path,
        resume_from=newest.folder if newest else None,
        expected_loss=noted,
    )

    if noted is not None and resumes_at is not None and resumes_at < 12:
        assert resumed.seen.resumptions == [(resumes_at, noted, noted)]
    assert resumed.seen.began_at == (resumes_at or 0)
    whole = uninterrupted.result
    assert whole is not None
    assert resumed.result is not None
    assert resumed.adapter == uninterrupted.adapter
    assert resumed.result.step == whole.step == 12
    assert {**stopped.seen.losses, **resumed.seen.losses} == uninterrupted.seen.losses
    eval_losses = {**stopped.seen.eval_losses, **resumed.seen.eval_losses}
    assert eval_losses == uninterrupted.seen.eval_losses
    assert resumed.result.totals.tokens == whole.totals.tokens
    assert resumed.result.totals.supervised_tokens == whole.totals.supervised_tokens
    assert resumed.result.totals.samples == whole.totals.samples
    assert _losses(resumed.result) == _losses(whole)


def _losses(result: TrainingResult) -> list[tuple[int, float | None, float | None]]:
    return [(entry["step"], entry.get("loss"), entry.get("eval_loss")) for entry in result.history]


def test_the_loss_that_follows_a_state_is_noted_with_it(
    model: Path, data: TrainingData, uninterrupted: Outcome, tmp_path: Path
) -> None:
    """What a resumed run has to find again, whether it was stopped or killed."""
    between = run(model, data, tmp_path, stop_at=8).seen.saves[-1]
    assert between.step == 2
    assert between.next_loss is not None
    evaluating = run(model, data, tmp_path / "evaluating", stop_at=17).seen.saves[-1]
    assert evaluating.next_loss is None, "nothing was trained after it"
    assert 7 in uninterrupted.seen.continuations


def test_stopped_several_times(
    model: Path, data: TrainingData, uninterrupted: Outcome, tmp_path: Path
) -> None:
    resume_from = None
    for _ in range(3):
        stopped = run(model, data, tmp_path, stop_at=11, resume_from=resume_from)
        assert stopped.result is None
        resume_from = stopped.seen.saves[-1].folder
    assert run(model, data, tmp_path, resume_from=resume_from).adapter == uninterrupted.adapter


def test_counts_are_those_of_the_data(uninterrupted: Outcome, data: TrainingData) -> None:
    assert uninterrupted.result is not None
    # 30 rows are 3 steps of 8 and one of 6 an epoch; 12 steps are three epochs.
    assert uninterrupted.result.totals.samples == 90
    assert uninterrupted.result.totals.tokens == 3 * sum(len(s.input_ids) for s in data.train)
    supervised = sum(int((s.labels != -100).sum()) for s in data.train)
    assert uninterrupted.result.totals.supervised_tokens == 3 * supervised
    assert [step.step for step in uninterrupted.seen.steps] == list(range(1, 13))


def test_checkpoints_fall_due_by_steps_time_and_best(uninterrupted: Outcome) -> None:
    steps, losses = (
        {saved.step for saved in uninterrupted.seen.saves},
        uninterrupted.seen.eval_losses,
    )
    assert {7, 12} <= steps  # every save_steps, and the last
    best_so_far = {s for s in losses if losses[s] == min(losses[t] for t in losses if t <= s)}
    assert 5 in best_so_far <= steps
    assert uninterrupted.seen.saves[-1].eval_loss == uninterrupted.seen.eval_losses[12]


def test_a_checkpoint_is_due_after_save_seconds(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    outcome = run(model, data, tmp_path, save_seconds=1e-6, save_steps=1000, max_steps=4)
    assert [saved.step for saved in outcome.seen.saves] == [1, 2, 3, 4]


def test_early_stopping_saves_its_last_state_and_stays_stopped(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    # A learning rate this high can't improve the validation loss for long.
    early: dict[str, Any] = {
        "learning_rate": 0.3,
        "max_steps": 40,
        "eval_steps": 2,
        "save_steps": 1000,
        "early_stopping_patience": 2,
    }
    outcome = run(model, data, tmp_path, **early)
    assert outcome.result is not None
    assert outcome.result.step < 40
    last = outcome.seen.saves[-1]
    assert last.step == outcome.result.step
    assert TrainingState.load(last.folder).finished

    again = run(model, data, tmp_path / "again", resume_from=last.folder, **early)
    assert again.seen.losses == {}
    assert again.adapter == outcome.adapter


@pytest.mark.parametrize(
    ("plan", "trained"),
    [
        pytest.param({"max_steps": 14}, [13, 14], id="more steps"),
        pytest.param({"max_steps": -1, "num_train_epochs": 4}, [13, 14, 15, 16], id="more epochs"),
        pytest.param({"max_steps": 9}, [], id="fewer than there were"),
        pytest.param({"max_steps": -1, "num_train_epochs": 3}, [], id="as many"),
    ],
)
def test_another_plan_goes_on_from_the_end_of_the_old_one(
    model: Path,
    data: TrainingData,
    uninterrupted: Outcome,
    tmp_path: Path,
    plan: dict[str, Any],
    trained: list[int],
) -> None:
    """Where its change was accepted: the last state of twelve steps is the end of those alone."""
    last = uninterrupted.seen.saves[-1]
    assert (last.step, TrainingState.load(last.folder).finished) == (12, True)
    again = run(model, data, tmp_path, resume_from=last.folder, **plan)
    assert sorted(again.seen.losses) == trained
    assert (again.adapter == uninterrupted.adapter) is (not trained)


def test_a_plan_that_ends_before_the_state_trains_no_step(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    stopped = run(model, data, tmp_path, stop_at=19)
    assert stopped.seen.saves[-1].step == 5
    again = run(model, data, tmp_path, resume_from=stopped.seen.saves[-1].folder, max_steps=4)
    assert again.seen.losses == {}


def test_a_diverged_run_is_named_and_not_saved(
    data: TrainingData, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = build_model(tmp_path_factory.mktemp("broken"))
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Diverged, match=r"step 1: loss is nan"):
        run(broken, data, tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))


class BrokenGradient(ReferenceEngine):
    """In `steps` one gradient is not finite, as where a product overflows; its loss was before."""

    def __init__(
        self, value: float, scaler: torch.amp.GradScaler | None = None, steps: Container[int] = (2,)
    ) -> None:
        super().__init__()
        self._steps = steps
        self._value = value
        self._scaler = scaler

    def adopt(self, trainer: Any) -> None:
        super().adopt(trainer)
        trainer.accelerator.scaler = self._scaler

        def broken(gradient: torch.Tensor) -> torch.Tensor | None:
            breaks = trainer.state.global_step + 1 in self._steps
            return torch.full_like(gradient, self._value) if breaks else None

        next(p for p in trainer.model.parameters() if p.requires_grad).register_hook(broken)


@pytest.mark.parametrize(
    ("value", "due", "saved"),
    [
        pytest.param(float("nan"), {"save_steps": 1}, ["checkpoint-1"], id="by steps"),
        pytest.param(float("inf"), {"save_seconds": 1e-6}, ["checkpoint-1"], id="by time"),
        pytest.param(float("nan"), {"max_steps": 2}, [], id="the last step"),
    ],
)
def test_what_a_broken_gradient_has_made_of_the_weights_is_not_saved(
    model: Path,
    data: TrainingData,
    tmp_path: Path,
    value: float,
    due: dict[str, Any],
    saved: list[str],
) -> None:
    unvalidated = TrainingData(data.train, stored(tmp_path / "none", []))
    with pytest.raises(Diverged, match=f"step 2: grad_norm is {value}"):
        run(model, unvalidated, tmp_path / "out", engine=BrokenGradient(value), **due)
    folders = sorted((tmp_path / "out").glob("checkpoint-*"))
    assert [folder.name for folder in folders] == saved
    for folder in folders:
        check_loadable(folder)


def test_a_step_that_the_scaler_of_fp16_skips_is_none_that_diverged(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    """torch's own, which accelerate would give a GPU without bf16."""
    engine = BrokenGradient(float("inf"), torch.amp.GradScaler("cpu"))
    outcome = run(model, data, tmp_path, engine=engine, max_steps=3)
    assert outcome.result is not None
    norms = [entry["grad_norm"] for entry in outcome.result.history if "grad_norm" in entry]
    assert [norm == float("inf") for norm in norms] == [False, True, False]
    check_loadable(outcome.seen.saves[-1].folder)


def test_a_scaler_that_skips_every_step_has_trained_nothing(
    model: Path, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "MOST_SKIPPED", 4)
    unvalidated = TrainingData(data.train, stored(tmp_path / "none", []))

    def skipping(steps: Container[int]) -> Outcome:
        engine = BrokenGradient(float("nan"), torch.amp.GradScaler("cpu"), steps)
        return run(model, unvalidated, tmp_path / "out", engine=engine, max_steps=8)

    with pytest.raises(Diverged, match="step 6: no gradient of 4 steps was finite"):
        skipping(range(3, 99))
    once_between = skipping({1, 2, 3, 5, 6, 7})
    assert once_between.result is not None
    assert once_between.result.step == 8


def test_a_background_failure_ends_training(
    model: Path, data: TrainingData, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="storage is gone"):
        run(model, data, tmp_path, stop_at=5, cause=Unavailable("storage is gone"))
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_stop_after_the_last_boundary_finds_training_over(
    model: Path, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several ranks then goes without ending the others."""
    said: list[str] = []

    def saved(seen: Recorder, saved: Saved) -> None:
        said.append(f"saved {saved.step}")
        if saved.step == 8:
            seen.stop.request(Preempted("received SIGTERM"))

    monkeypatch.setattr(Recorder, "saved", saved)
    settings: dict[str, Any] = {"max_steps": 8, "save_steps": 100, "eval_steps": 100}
    outcome = run(model, data, tmp_path, on_trained=lambda: said.append("trained"), **settings)
    assert outcome.result is None
    assert said[-2:] == ["saved 8", "trained"]
