"""Checkpoint, model, training: from what is restored to the weights that are published."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job import trackers
from job.checkpoint import Rejected, Restored, best, download_folder, drop, restore_newest
from job.dataset import PreparedData
from job.engines import Engine, LoadedModel
from job.errors import MicroBatchTooLarge
from job.ledger import Checkpoint, Difference, Rejection, RunRecord
from job.model import BaseModel
from job.ranks import ALONE
from job.redact import redact
from job.stages.context import RESTORE_PATIENCE_SECONDS, RESTORED, Run

if TYPE_CHECKING:
    from job.training import Fit, Judge

_log = logging.getLogger(__name__)

_RECORD_SECONDS = 30.0


@dataclass(frozen=True)
class Trained:
    """What training leaves; the weights are in the model."""

    step: int
    """The step that the weights are of."""
    history: list[dict[str, Any]]


def restore(run: Run) -> Restored | None:
    """The newest sound checkpoint; damaged ones leave the record."""

    from job.training import check_loadable

    def rejected(checkpoint: Checkpoint, reason: str) -> None:
        run.metrics.checkpoint_rejected()
        rejection = Rejection(key=checkpoint.key, step=checkpoint.step, reason=redact(reason))

        def note(record: RunRecord) -> None:
            drop(record, [checkpoint])
            record.current.rejected.append(rejection)

        run.ledger.update(note)

    restored = restore_newest(
        run.storage,
        list(run.ledger.record.checkpoints),
        run.own_dir / RESTORED,
        rejected,
        check=check_loadable,
        patiently=run.patience(RESTORE_PATIENCE_SECONDS),
    )
    step = restored.checkpoint.step if restored else 0
    if restored:
        _log.info("resuming from the checkpoint of step %d", step)

    def change(record: RunRecord) -> None:
        attempt = record.current
        attempt.lost_steps += max(0, attempt.from_step - step)  # of checkpoints passed over
        attempt.from_step = attempt.to_step = record.progress.step = step

    run.ledger.update(change)
    return restored


def load_model(run: Run, engine: Engine, model: BaseModel) -> LoadedModel:
    """The weights, in 4 bits and with LoRA layers; what was really loaded is recorded."""
    from job.evaluation.generate import own_ends

    loaded = engine.load(model.source.model_dir(), run.settings.hyperparameters())
    model.adopt_template(loaded.tokenizer)
    model.adopt_end(loaded.tokenizer, own_ends(loaded.model))
    found = {"name": run.settings.base_model, "revision": model.revision} | loaded.provenance
    run.uploader.later(lambda record: setattr(record, "model", found))
    return loaded


def train_model(
    run: Run,
    engine: Engine,
    loaded: LoadedModel,
    data: PreparedData,
    restored: Restored | None,
    judge: Judge | None = None,
    accepted: Sequence[Difference] = (),
    validation_changed: bool = False,
) -> Trained:
    """Train, wait until the last checkpoint is durable, and take the best weights. `judge`
    generates while training is under way; the rest is as in `job.training.train`."""
    from job.training import Resume, TrainingData, train

    resume = None
    if restored:
        noted = restored.checkpoint.next_loss
        resume = Resume(restored.path, noted, accepted, validation_changed)
    try:
        with trackers.environment(run.storage.uri, run.own_dir):
            result = train(
                engine,
                loaded,
                TrainingData(data.train, data.evaluation),
                run.settings,
                run.monitor,
                run.stop,
                run.own_dir / "checkpoints",
                resume,
                fit=recorded_fit(run.ledger.record),
                judge=judge,
                ranks=run.ranks or ALONE,
            )
        if run.ranks:
            run.ranks.trained()
    except MicroBatchTooLarge:
        run.uploader.flush(_RECORD_SECONDS)  # the next attempt has to know
        raise
    finally:
        run.monitor.ended()
    # Not "training" any more: no step hangs while the last upload waits an outage out.
    run.metrics.phase("publishing")
    began = time.monotonic()
    while not run.uploader.flush(timeout_seconds=0.2):
        run.stop.check()
    run.stop.check()
    run.metrics.checkpoint_stalled(time.monotonic() - began)
    return Trained(take_best(run, loaded, result.step), result.history)


def recorded_fit(record: RunRecord) -> Fit | None:
    from job.training import Fit

    found = record.micro_batch
    if found is None:
        return None
    return Fit(found.per_device_train_batch_size, found.gradient_accumulation_steps)


def take_best(run: Run, loaded: LoadedModel, last_step: int) -> int:
    """With early stopping on, the adapter is the checkpoint with the lowest validation loss."""
    from job.training import load_adapter

    champion = best(run.ledger.record.checkpoints)
    if not run.settings.early_stopping_patience or champion is None or champion.step == last_step:
        return last_step
    folder = run.own_dir / "best"

    def download() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        download_folder(run.storage, champion.key, champion.manifest_sha256, folder)

    try:
        run.patience()(download)
    except Rejected as reason:
        _log.error("the best checkpoint can't be used, the last one is: %s", reason)
        return last_step
    load_adapter(loaded.model, folder)
    _log.info("the adapter is that of step %d, the lowest validation loss", champion.step)
    return champion.step
