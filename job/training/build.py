"""The trainer of a run: every argument of it, its data, and its construction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import set_seed

from job.config import Settings
from job.dataset import Samples
from job.engines import Engine, LoadedModel
from job.profiles import Hyperparameters
from job.ranks import ALONE, Ranks
from job.training.callbacks import EarlyStopping
from job.training.tracker_guard import guard
from job.training.trainer import job_trainer


@dataclass(frozen=True)
class TrainingData:
    """Tokenized conversations."""

    train: Samples
    evaluation: Samples


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


def build_trainer(
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
