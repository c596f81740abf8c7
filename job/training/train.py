"""Training: every argument of the trainer, its construction, the loop, and its end."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from torch.nn.parallel import DistributedDataParallel
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.trainer_utils import set_seed

from job.collector import collect_usually
from job.config import Settings
from job.dataset import Samples
from job.engines import Engine, LoadedModel
from job.errors import MicroBatchTooLarge, OutOfDisk, OutOfGpuMemory, Problem
from job.lifecycle import StopToken
from job.profiles import Hyperparameters
from job.ranks import ALONE, Ranks
from job.training.callbacks import EarlyStopping, JobCallback, TrainingOver
from job.training.fitting import Fit, TooLarge, TryOut, shrink, smaller
from job.training.observer import Judge, TrainingObserver
from job.training.randomness import random_state, restore_random_state
from job.training.sameness import refuse_other_inputs
from job.training.state import TrainingState
from job.training.trackers import guard
from job.training.trainer import job_trainer

_log = logging.getLogger(__name__)

_NO_MEMORY = (
    "take a GPU with more memory (`validate --gpu-memory` says how much), or lower "
    "FORGE_MAX_SEQ_LENGTH or FORGE_LORA_R, or set FORGE_OPTIM=paged_adamw_8bit"
)

_FULL_BYTES = 1 << 16
"""A file system with less room than this is full: a write has just failed on it."""


@dataclass(frozen=True)
class TrainingResult:
    """Where training ended. The adapter is in the model that was given."""

    step: int
    epoch: float
    history: list[dict[str, Any]]
    """The Trainer's log over all attempts: an entry a step, one an evaluation, and one of rates
    (`eval_exact`, …) where that generated turns."""
    totals: TrainingState


@dataclass(frozen=True)
class TrainingData:
    """Tokenized conversations."""

    train: Samples
    evaluation: Samples


def train(
    engine: Engine,
    loaded: LoadedModel,
    data: TrainingData,
    settings: Settings,
    observer: TrainingObserver,
    stop: StopToken,
    output_dir: Path,
    resume_from: Path | None = None,
    expected_loss: float | None = None,
    fit: Fit | None = None,
    judge: Judge | None = None,
    ranks: Ranks = ALONE,
) -> TrainingResult:
    """Train `loaded.model` in place, from `resume_from` if given; `expected_loss` is what the
    first micro-batch after it had before, `fit` the micro-batch that an earlier attempt found.
    `judge` generates held-out turns at some of the evaluations, which changes nothing else.

    Raises `Stopped` (after the state was handed to the observer), `Diverged`, `OutOfGpuMemory` at
    micro-batch 1, `MicroBatchTooLarge` where memory runs out later at a larger one, `OutOfDisk`,
    and whatever the background threads asked to stop for.
    """
    hyperparameters = settings.hyperparameters()
    if fit is not None:
        hyperparameters = fit.applied(hyperparameters)
    resumed = TrainingState.load(resume_from) if resume_from else TrainingState()
    callback = JobCallback(
        observer,
        stop,
        save_seconds=settings.save_seconds,
        evaluates=bool(data.evaluation),
        resumed=resumed,
        expected_loss=expected_loss,
        judge=judge,
        ranks=ranks,
    )
    evaluates = bool(data.evaluation)
    arguments = training_arguments(hyperparameters, settings, output_dir, evaluates=evaluates)
    arguments |= engine.training_arguments()
    with ranks.explained():
        decisive = arguments | {
            "hyperparameters": hyperparameters,
            "early_stopping_patience": settings.early_stopping_patience,
            "eval_generate_every": settings.eval_generate_every,
        }
        refuse_other_inputs(ranks, data.train, data.evaluation, loaded.model, decisive)
    try_out = TryOut(data.train, hyperparameters.optim, observer.fitted, ranks)
    trainer = _build(engine, loaded, data, settings, arguments, [try_out, callback], ranks)
    trainer.after_first = callback.first_micro_batch
    collect_usually()
    with (
        stop.deferred(),
        ranks.explained(),
        _translated_errors(output_dir, trainer, observer),
    ):
        if resume_from is not None and _is_over(trainer, resume_from, resumed):
            _conclude(trainer, callback, resume_from)
        else:
            _loop(trainer, resume_from)
        stop.check()
    state = trainer.state
    return TrainingResult(
        step=state.global_step,
        epoch=state.epoch or 0.0,
        history=[entry for entry in state.log_history if _is_told(entry)],
        totals=callback.totals,
    )


def _is_told(entry: dict[str, Any]) -> bool:
    """Of a step or an evaluation, not the Trainer's sums at its end."""
    return "loss" in entry or any(name.startswith("eval_") for name in entry)


def to_dataset(samples: Samples) -> datasets.Dataset:
    """Two columns of token ids with their types given: nothing is inferred, and nothing copied;
    they stay mapped from the files of the store."""
    input_ids, labels, bounds = samples.store.columns
    table = pa.table({"input_ids": _lists(input_ids, bounds), "labels": _lists(labels, bounds)})
    # Given, since it would be computed from all of the data.
    dataset = datasets.Dataset(table, fingerprint=samples.store.key)
    return dataset.select(samples.indices)


def _lists(values: npt.NDArray[np.int32], bounds: npt.NDArray[np.int64]) -> pa.Array:
    flat = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
    return pa.LargeListArray.from_arrays(pa.array(bounds), flat)


def training_arguments(
    hyperparameters: Hyperparameters, settings: Settings, output_dir: Path, *, evaluates: bool
) -> dict[str, Any]:
    """The engine-independent arguments of `SFTConfig`, every one that matters given."""
    h = hyperparameters
    return {
        "output_dir": str(output_dir),
        "max_length": None,  # rows were measured before; TRL would cut answers off
        "packing": False,
        "per_device_train_batch_size": h.per_device_train_batch_size,
        "per_device_eval_batch_size": h.per_device_train_batch_size,
        "gradient_accumulation_steps": h.gradient_accumulation_steps,
        "max_steps": h.max_steps,
        "num_train_epochs": h.num_train_epochs,
        "learning_rate": h.learning_rate,
        # transformers 5 reads a value below 1 as a share of all steps.
        "warmup_steps": h.warmup_steps or h.warmup_ratio,
        "weight_decay": h.weight_decay,
        "lr_scheduler_type": h.lr_scheduler_type,
        "optim": h.optim,
        "max_grad_norm": 1.0,
        "seed": h.seed,
        "data_seed": h.seed,
        "dataloader_num_workers": 0,  # batches are ready-made; workers would be orphaned by kills
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a diverged run
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": settings.eval_steps if evaluates else None,
        "metric_for_best_model": "eval_loss" if evaluates else None,
        "greater_is_better": False if evaluates else None,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": None,  # the uploader removes what it has committed
        "load_best_model_at_end": False,  # done at publishing, from a verified checkpoint
        "restore_callback_states_from_checkpoint": True,
        "ignore_data_skip": False,
        "remove_unused_columns": True,
        "report_to": list(settings.report_to) or "none",
        "run_name": settings.run_id,
        "disable_tqdm": True,
        # With several ranks: one loss over the supervised tokens of all, and batches in turn.
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "accelerator_config": {"dispatch_batches": False, "even_batches": True},
    }


def _build(
    engine: Engine,
    loaded: LoadedModel,
    data: TrainingData,
    settings: Settings,
    arguments: dict[str, Any],
    own: list[Any],
    ranks: Ranks = ALONE,
) -> Any:
    classes = engine.trainer_classes()
    callbacks = list(own)
    if data.evaluation and settings.early_stopping_patience:
        callbacks.append(EarlyStopping(settings.early_stopping_patience))
    set_seed(arguments["seed"])
    if ranks.size > 1:
        leave_frozen_alone(loaded.model)
    trainer = job_trainer(classes.trainer, ranks)(
        model=loaded.model,
        args=classes.config(**arguments),
        train_dataset=to_dataset(data.train),
        eval_dataset=to_dataset(data.evaluation) if data.evaluation else None,
        processing_class=loaded.tokenizer,
        callbacks=callbacks,
    )
    if trainer.args.device.type == "cpu":
        # Among ranks accelerate calls it "cpu:0", where torch.load can't bring an optimizer back.
        vars(trainer.args)["_setup_devices"] = torch.device("cpu")
    guard(trainer, settings.report_to, settings.run_uri)
    trainer.remove_callback(PrinterCallback)  # our log says it
    for callback in own:
        callback.trainer = trainer
    engine.adopt(trainer)
    return trainer


def leave_frozen_alone(model: Any) -> None:
    """Keep `DistributedDataParallel` from sending the base model around: every rank has it, its
    4-bit weights are no floats, and only what is trained has gradients."""
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    frozen += [name for name, _ in model.named_buffers()]
    ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(model, frozen)


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
        _log.warning("%s; going on with %s", found, _said(fit))
        shrink(trainer, fit)
        restore_random_state(randomness)


def _said(fit: Fit) -> str:
    return f"{fit.per_device_train_batch_size} × {fit.gradient_accumulation_steps} conversations"


def _is_over(trainer: Any, folder: Path, resumed: TrainingState) -> bool:
    """By the present plan: where a change of it was accepted, what the old one ended goes on, and
    what the new one has no step for does not. A run that stopped early is over by any plan."""
    state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    step, planned = state.global_step, trainer.args.max_steps
    if not resumed.finished and not 0 < state.max_steps <= step:
        return bool(0 < planned <= step)
    if resumed.finished and step < state.max_steps:
        return True
    return bool(step >= (planned if planned > 0 else _steps_of_epochs(trainer)))


def _steps_of_epochs(trainer: Any) -> int:
    batches = trainer.get_train_dataloader()
    return int(trainer.set_initial_training_values(trainer.args, batches)[-1])


def _conclude(trainer: Any, callback: JobCallback, folder: Path) -> None:
    """Take up a run that was over when it was cut off: its weights, and an evaluation still due.

    The Trainer itself would go on past the last step.
    """
    load_adapter(trainer.model, folder)
    trainer.state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
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
    except torch.OutOfMemoryError as error:
        args = trainer.args
        fit = smaller(args.per_device_train_batch_size, args.gradient_accumulation_steps)
        if fit is None:
            raise OutOfGpuMemory(Problem("GPU", str(error), _NO_MEMORY)) from error
        observer.fitted(fit)
        hint = f"the next attempt goes on from the last checkpoint with {_said(fit)}"
        raise MicroBatchTooLarge(Problem("GPU", str(error), hint)) from error
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_full(error, output_dir):
            raise
        hint = "give the work volume more room, or lower FORGE_LORA_R"
        raise OutOfDisk(Problem("FORGE_WORK_DIR", "no space left", hint)) from error


def _is_disk_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    # safetensors wraps the system's error; torch's writer only says that its file is too short.
    if os.strerror(errno.ENOSPC) in str(error):
        return True
    return "inline_container" in str(error) and shutil.disk_usage(folder).free < _FULL_BYTES
