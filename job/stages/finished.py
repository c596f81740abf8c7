"""A run that is finished, and is started again."""

from __future__ import annotations

import logging
from pathlib import Path

from job import exports, publish
from job.checkpoint import Rejected
from job.config import Settings
from job.errors import GateFailed, Problem
from job.ledger import FINISHED, RunRecord
from job.promotion import promote_once
from job.promotion.gate import verdict_of_finished
from job.stages import fingerprint
from job.storage import Storage, open_storage

_log = logging.getLogger(__name__)


def already_finished(
    settings: Settings,
    storage: Storage,
    found: tuple[RunRecord, str],
    work_dir: Path,
    size: int,
) -> RunRecord | None:
    """A finished run is not run again: its adapter is verified, and that is all. None for one that
    is not finished, or whose adapter is damaged; `size` is the number of processes.

    Raises `GateFailed`, and `SettingsError` for what a finished run can't take up any more.
    """
    record = found[0]
    if not is_finished_soundly(settings, storage, record, work_dir, size):
        return None
    promote_once(open_storage(settings.output_uri), storage, *found, settings.promote)
    return record


def is_finished_soundly(
    settings: Settings, storage: Storage, record: RunRecord, work_dir: Path, size: int
) -> bool:
    """As `already_finished` judges it and raises, but nothing is written."""
    adapter = record.adapter
    if record.status not in FINISHED or adapter is None:
        return False
    settings = fingerprint.at_same_batch(settings, record, size)
    fingerprint.refuse_to_finish_again(record, settings, size)
    try:
        publish.verify(storage, adapter.key, adapter.manifest_sha256, work_dir / "verify")
    except Rejected as reason:
        _log.error("the finished run's adapter is damaged and is published anew: %s", reason)
        return False
    _log.info("the run is finished, its adapter is sound: %s/%s", storage.uri, adapter.key)
    if failure := verdict_of_finished(settings, record):
        raise GateFailed(Problem("promotion gate", failure))
    exports.refuse_new(settings, record)
    return True
