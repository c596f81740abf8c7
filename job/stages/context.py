"""What the stages of a run share: its settings, its collaborators, its folder."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from job.checkpoint import CheckpointUploader
from job.config import Settings
from job.dataset import is_prepared
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.metrics import Metrics
from job.ranks import JoinedRanks
from job.stages.monitor import Monitor
from job.stages.workdir import attempt_folders, attempt_name
from job.storage import Patience, Storage

_log = logging.getLogger(__name__)

PREPARED = "prepared"
RESTORED = "restored"

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
    ranks: JoinedRanks | None = None
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
