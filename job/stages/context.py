"""The stages of a run, one function each, over what they share (`Run`)."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import trackers
from job.checkpoint import (
    CheckpointUploader,
    Rejected,
    Restored,
    best,
    download_folder,
    drop,
    restore_newest,
)
from job.config import Settings
from job.dataset import (
    DataFile,
    DataRejected,
    DataReport,
    PreparedData,
    PrepareOptions,
    is_prepared,
    prepare,
)
from job.engines import Engine, LoadedModel
from job.errors import MicroBatchTooLarge
from job.ledger import Checkpoint, Difference, Ledger, Rejection, RunRecord, put
from job.lifecycle import TRACKERS_SECONDS, StopToken
from job.metrics import Metrics
from job.model import BaseModel
from job.promotion.gate import gate_of
from job.ranks import ALONE, Fellowship
from job.redact import redact
from job.stages.monitor import Monitor
from job.stages.workdir import attempt_folders, attempt_name
from job.storage import Patience, Storage

if TYPE_CHECKING:
    from job.training import Fit, Judge

_log = logging.getLogger(__name__)

PREPARED = "prepared"
RESTORED = "restored"

_RECORD_SECONDS = 30.0

_EVENTS_SECONDS = 3.0
"""Of the grace period; with less left the process ends without a last upload of event files."""

RESTORE_PATIENCE_SECONDS = 120.0
"""A checkpoint that can't be had for so long is passed over, if an older one can be had."""


def patience(seconds: float, metrics: Metrics, stop: StopToken) -> Patience:
    """With an outage of storage: a stop ends it, and the wait is a sign of life."""
    return Patience(seconds, on_failure=lambda _error: metrics.moved(), pause=stop.pause)


@dataclass(frozen=True)
class Run:
    """What all stages share: settings, and the run's collaborators."""

    settings: Settings
    work_dir: Path
    storage: Storage
    metrics: Metrics
    stop: StopToken
    ledger: Ledger
    uploader: CheckpointUploader
    monitor: Monitor
    ranks: Fellowship | None = None
    """Of which this is the first; None for a single process."""

    @property
    def size(self) -> int:
        return self.ranks.size if self.ranks else 1

    @property
    def asked_to_stop(self) -> bool:
        """Whether this rank was, or another one that waits for it."""
        return self.stop.requested or (self.ranks is not None and self.ranks.others_asked)

    def patience(self, seconds: float | None = None) -> Patience:
        """With an outage of storage, as long as the user allows unless `seconds` says otherwise."""
        allowed = self.settings.storage_patience_seconds if seconds is None else seconds
        return patience(allowed, self.metrics, self.stop)

    @property
    def own_dir(self) -> Path:
        """For what no other attempt may touch: one that was replaced may still be alive, and share
        the work volume."""
        return self.work_dir / attempt_name(self.ledger.attempt, self.ledger.record.created_at)

    def replace_older_attempts(self) -> None:
        """Their tokenized data, where they are whole, become ours; all else of theirs goes, as does
        what is left of a run of this place that was begun anew since. (Data say what they were made
        from, so those may be of that one.)"""
        own = self.own_dir / PREPARED
        found = attempt_folders(self.work_dir, self.ledger.record.created_at)
        for folder, number in found.items():
            if number is not None and number >= self.ledger.attempt:
                continue
            if is_prepared(folder / PREPARED) and not own.exists():
                own.parent.mkdir(exist_ok=True)
                (folder / PREPARED).rename(own)
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Trained:
    """What training leaves; the weights are in the model."""

    step: int
    """The step that the weights are of."""
    history: list[dict[str, Any]]


def end_trackers(run: Run, exit_code: int) -> None:
    """Trackers hear how the attempt ended, and their files go to storage; where none was asked
    for, nothing happens."""
    seconds = TRACKERS_SECONDS
    if run.stop.signalled:
        seconds = min(seconds, run.stop.seconds_left() / 2)
        if run.stop.seconds_left() < _EVENTS_SECONDS:
            return
    with run.stop.deferred():  # a signal must not turn how the run ended into a preemption
        if run.settings.report_to:
            trackers.end(exit_code, seconds / len(run.settings.report_to))
            trackers.upload_files(run.storage, run.own_dir, run.ledger.attempt)


def prepare_data(run: Run, files: list[DataFile], model: BaseModel) -> PreparedData:
    """Check, render, mask and split; the data report goes to storage either way."""
    options = PrepareOptions.from_settings(run.settings, model.position_limit)
    if options.max_seq_length < run.settings.hyperparameters().max_seq_length:
        _log.warning("the model has %d positions: longer rows don't fit", options.max_seq_length)
    try:
        data = prepare(files, model.chat, options, run.own_dir / PREPARED, run.metrics.moved)
    except DataRejected as rejection:
        _report_data(run, rejection.report)
        raise
    _report_data(run, data.report)
    return data


def _report_data(run: Run, report: DataReport) -> None:
    patiently = run.patience()
    for name, content in report.artifacts().items():
        key = f"dataset/{name}"
        send = (
            partial(run.storage.upload, key, content)
            if isinstance(content, Path)
            else partial(run.storage.write, key, content)
        )
        patiently(put, run.storage, run.ledger, key, send)
    run.metrics.dataset(report.results)
    _log.info("data: %s", report.headline())
    for notice in report.notices():
        _log.warning("data: %s", notice)
    if told := gate_of(run.settings).early_notice(report.held_out_calls):
        _log.warning(told)


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
    loaded = engine.load(model.source.model_dir(), run.settings.hyperparameters())
    model.adopt_template(loaded.tokenizer)
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
    from job.training import TrainingData, train

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
                restored.path if restored else None,
                restored.checkpoint.next_loss if restored else None,
                fit=recorded_fit(run.ledger.record),
                judge=judge,
                ranks=run.ranks or ALONE,
                accepted=accepted,
                validation_changed=validation_changed,
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
