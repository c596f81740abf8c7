"""What an attempt has to agree on with the run that it goes on with, and what it may change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from job.checkpoint import Restored
from job.config import Settings
from job.dataset import DataFile, PreparedData
from job.engines import Engine
from job.ledger import Difference, RunRecord, compare
from job.model import BaseModel
from job.stages import fingerprint
from job.stages.context import Run

_log = logging.getLogger(__name__)


def agree_on_fingerprint(
    run: Run, files: list[DataFile], model: BaseModel, engine: Engine, data: PreparedData
) -> list[Difference]:
    """Refuse to go on with a run that was begun with other mathematics. Returns what differs, and
    is accepted: that is recorded once a checkpoint has been loaded under it, so that an attempt
    that can't do that leaves the run as it was."""
    current = fingerprint.of_run(
        run.settings,
        files,
        model.revision,
        model.chat.template_sha256,
        engine.name,
        _precision(engine),
        data.report.counts,
        run.size,
    )
    record, accepted = run.ledger.record, list[Difference]()
    if record.fingerprint and record.checkpoints:
        allowed = run.settings.allow_fingerprint_change
        for difference in compare(fingerprint.recorded(record), current, allowed):
            _log.warning("the run goes on with a difference: %s", difference)
            if difference.needs_acceptance:
                accepted.append(difference)
    recorded = _recording(run.settings, current, accepted, run.size)
    if accepted:
        run.monitor.once_begun(recorded)
    else:
        run.ledger.update(recorded)
    return accepted


def _precision(engine: Engine) -> str:
    arguments = engine.training_arguments()
    return "bf16" if arguments["bf16"] else "fp16" if arguments["fp16"] else "fp32"


def _recording(
    settings: Settings, current: dict[str, Any], accepted: Sequence[Difference], ranks: int
) -> Callable[[RunRecord], None]:
    """The change of the record that makes `current` its fingerprint, and says what was accepted.
    Checkpoints that were made before lose a validation loss that ours can't be held against."""

    def change(record: RunRecord) -> None:
        record.fingerprint = current
        record.settings = settings.public()
        record.effective_batch_size = settings.hyperparameters().effective_batch_size * ranks
        record.current.accepted = [str(difference) for difference in accepted]
        if any(difference.touches_validation for difference in accepted):
            record.current.validation_changed = True
            for checkpoint in record.checkpoints:
                if checkpoint.attempt < record.attempt:
                    checkpoint.eval_loss = None

    return change


def validation_changed(
    record: RunRecord, restored: Restored | None, accepted: Sequence[Difference]
) -> bool:
    """Whether the validation losses up to the restored checkpoint are of something else than ours:
    by what this attempt accepts, or one did that left no checkpoint after it."""
    if restored is None:
        return False
    since = restored.checkpoint.attempt
    before = (a.validation_changed for a in record.attempts if a.number > since)
    return any(before) or any(found.touches_validation for found in accepted)
