"""Training: the loop, and its end."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.trainer_callback import TrainerState

from job.config import Settings
from job.engines import Engine, LoadedModel, is_out_of_memory
from job.errors import JobError, MicroBatchTooLarge, OutOfDisk, OutOfGpuMemory, Problem
from job.garbage import collect_usually
from job.ledger import refuse_too_late
from job.lifecycle import StopToken
from job.profiles import Hyperparameters
from job.ranks import ALONE, Ranks
from job.storage import disk_is_full
from job.training.build import TrainingData, build_trainer, training_arguments
from job.training.callbacks import JobCallback, TrainingOver
from job.training.fitting import Fit, TooLarge, TryOut, shrink, smaller
from job.training.observer import Judge, TrainingObserver
from job.training.randomness import random_state, restore_random_state
from job.training.resumed import Resume, lost_patience
from job.training.sameness import refuse_other_inputs
from job.training.shapes import refuse_other_shapes
from job.training.state import TrainingState

_log = logging.getLogger(__name__)

_NO_MEMORY = (
    "take a GPU with more memory (`validate --gpu-memory` says how much), or lower "
    "FORGE_MAX_SEQ_LENGTH or FORGE_LORA_R, or set FORGE_OPTIM=paged_adamw_8bit"
)

_PROBE_BYTES = 1 << 16
"""A volume that doesn't take this much is full: a write has just failed on it."""


@dataclass(frozen=True)
class TrainingResult:
    """Where training ended. The adapter is in the model that was given."""

    step: int
    epoch: float
    history: list[dict[str, Any]]
    """The Trainer's log over all attempts: an entry a step, one an evaluation, and one of rates
    (`eval_exact`, …) where that generated turns."""
    totals: TrainingState


def train(
    engine: Engine,
    loaded: LoadedModel,
    data: TrainingData,
    settings: Settings,
    observer: TrainingObserver,
    stop: StopToken,
    output_dir: Path,
    resume: Resume | None = None,
    fit: Fit | None = None,
    judge: Judge | None = None,
    ranks: Ranks = ALONE,
    on_trained: Callable[[], None] = lambda: None,
) -> TrainingResult:
    """Train `loaded.model` in place, from `resume` on if given, with the micro-batch `fit` if an
    earlier attempt found one. `judge` generates held-out turns at some of the evaluations, which
    changes nothing else. `on_trained` is called after the last step, before a stop that was asked
    for since its last boundary is obeyed.

    Raises `Stopped` (after the state was handed to the observer), `Diverged`, `OutOfGpuMemory` at
    micro-batch 1, `MicroBatchTooLarge` where memory runs out later at a larger one, `OutOfDisk`,
    `FingerprintMismatch` where training was over before what was accepted could have an effect, or
    where the checkpoint is of another model, and whatever the background threads asked to stop for.
    """
    if resume is not None:
        refuse_other_shapes(loaded.model, resume.path)
    hyperparameters = settings.hyperparameters()
    if fit is not None:
        hyperparameters = fit.applied(hyperparameters)
    resumed = TrainingState.load(resume.path) if resume else TrainingState()
    validation_changed = resume is not None and resume.validation_changed
    evaluates = bool(data.evaluation)
    callback = JobCallback(
        observer,
        stop,
        save_seconds=settings.save_seconds,
        evaluates=evaluates,
        resumed=resumed,
        expected_loss=resume.expected_loss if resume else None,
        judge=judge,
        ranks=ranks,
    )
    arguments = training_arguments(hyperparameters, settings, output_dir, evaluates=evaluates)
    arguments |= engine.training_arguments()
    decisive = _decisive(arguments, hyperparameters, settings, validation_changed)
    with ranks.explained():
        refuse_other_inputs(ranks, data.train, data.evaluation, loaded.model, decisive)
    try_out = TryOut(data.train, hyperparameters.optim, observer.fitted, ranks)
    trainer = build_trainer(engine, loaded, data, settings, arguments, [try_out, callback], ranks)
    trainer.after_first = callback.first_micro_batch
    trainer.validation_changed = validation_changed
    collect_usually()
    with (
        stop.deferred(),
        ranks.explained(),
        _translated_errors(output_dir, trainer, observer),
    ):
        if resume and _is_over(trainer, resume.path, resumed, settings):
            refuse_too_late(resume.accepted, _state_of(resume.path).global_step)
            _conclude(trainer, callback, resume.path)
        else:
            _loop(trainer, resume.path if resume else None)
        on_trained()
        stop.check()
    return _result(trainer.state, callback.totals)


def _decisive(
    arguments: dict[str, Any],
    hyperparameters: Hyperparameters,
    settings: Settings,
    validation_changed: bool,
) -> dict[str, Any]:
    """What all ranks have to train with alike."""
    return arguments | {
        "hyperparameters": hyperparameters,
        "early_stopping_patience": settings.early_stopping_patience,
        "eval_generate_every": settings.eval_generate_every,
        "validation_changed": validation_changed,
    }


def _result(state: TrainerState, totals: TrainingState) -> TrainingResult:
    return TrainingResult(
        step=state.global_step,
        epoch=state.epoch or 0.0,
        history=[entry for entry in state.log_history if _belongs_to_history(entry)],
        totals=totals,
    )


def _belongs_to_history(entry: dict[str, Any]) -> bool:
    """Of a step or an evaluation, not the Trainer's sums at its end."""
    return "loss" in entry or any(name.startswith("eval_") for name in entry)


def _loop(trainer: Any, resume_from: Path | None) -> None:
    """Train, with the largest micro-batch from the one that was asked for down that fits."""
    randomness = random_state()
    while True:
        try:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        except TrainingOver:
            return
        except TooLarge as error:
            args = trainer.args
            found = f"the longest micro-batch of {args.per_device_train_batch_size}: {error}"
            fit = smaller(args.per_device_train_batch_size, args.gradient_accumulation_steps)
        else:
            return
        if fit is None:
            raise OutOfGpuMemory(Problem("GPU", found, _NO_MEMORY))
        _log.warning("%s; going on with %s", found, _in_words(fit))
        shrink(trainer, fit)
        restore_random_state(randomness)


def _in_words(fit: Fit) -> str:
    return f"{fit.per_device_train_batch_size} × {fit.gradient_accumulation_steps} conversations"


def _is_over(trainer: Any, folder: Path, resumed: TrainingState, settings: Settings) -> bool:
    """By the present plan: where a change of it was accepted, what the old one ended goes on, and
    what the new one has no step for does not. So for a run that stopped early: only patience that
    is longer now, or other losses to be patient with, let it go on."""
    state = _state_of(folder)
    step, planned = state.global_step, trainer.args.max_steps
    if not resumed.finished and not 0 < state.max_steps <= step:
        return bool(0 < planned <= step)
    if resumed.finished and step < state.max_steps:
        changed = trainer.validation_changed
        patience = settings.early_stopping_patience
        return lost_patience(state, patience, validation_changed=changed)
    return bool(step >= (planned if planned > 0 else _steps_of_epochs(trainer)))


def _state_of(folder: Path) -> TrainerState:
    return TrainerState.load_from_json(str(folder / "trainer_state.json"))


def _steps_of_epochs(trainer: Any) -> int:
    batches = trainer.get_train_dataloader()
    return int(trainer.set_initial_training_values(trainer.args, batches)[-1])


def _conclude(trainer: Any, callback: JobCallback, folder: Path) -> None:
    """Take up a run that was over when it was cut off: its weights, and an evaluation still due.

    The Trainer itself would go on past the last step.
    """
    load_adapter(trainer.model, folder)
    trainer.state = _state_of(folder)
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    if callback.pending_evaluation:
        trainer._determine_best_metric(metrics=trainer.evaluate(), trial=None)


def load_adapter(model: Any, folder: Path) -> None:
    """Put a checkpoint's LoRA weights (safetensors) into the model."""
    from peft import load_peft_weights, set_peft_model_state_dict

    weights = load_peft_weights(str(folder), device="cpu")
    set_peft_model_state_dict(model, weights)


@contextmanager
def _translated_errors(
    output_dir: Path, trainer: Any, observer: TrainingObserver
) -> Iterator[None]:
    """Out of memory and out of disk, as the job's own errors."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise _out_of_gpu_memory(
                str(error).partition("\n")[0], trainer.args, observer
            ) from error
        if not _out_of_disk(error, output_dir):
            raise
        hint = "give the work volume more room, or lower FORGE_LORA_R"
        raise OutOfDisk(Problem("FORGE_WORK_DIR", "no space left", hint)) from error


def _out_of_gpu_memory(found: str, args: Any, observer: TrainingObserver) -> JobError:
    fit = smaller(args.per_device_train_batch_size, args.gradient_accumulation_steps)
    if fit is None:
        return OutOfGpuMemory(Problem("GPU", found, _NO_MEMORY))
    observer.fitted(fit)
    hint = f"the next attempt goes on from the last checkpoint with {_in_words(fit)}"
    return MicroBatchTooLarge(Problem("GPU", found, hint))


def _out_of_disk(error: Exception, folder: Path) -> bool:
    # torch's writer only says that its file is too short.
    return disk_is_full(error) or ("inline_container" in str(error) and _takes_no_more(folder))


def _takes_no_more(folder: Path) -> bool:
    """By a write: what the file system calls free says nothing of a quota."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return disk_is_full(error)
    return False
