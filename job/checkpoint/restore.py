"""Back to the newest sound checkpoint: what fails its check is passed over for the next older."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.checkpoint.manifest import Rejected
from job.checkpoint.transfer import download_folder
from job.ledger.record import Checkpoint
from job.storage.base import Storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint on local disk."""

    checkpoint: Checkpoint
    path: Path


def restore_newest(
    storage: Storage,
    checkpoints: list[Checkpoint],
    folder: Path,
    on_rejected: Callable[[Checkpoint, str], None] = lambda _checkpoint, _reason: None,
) -> Restored | None:
    """Download the newest checkpoint that verifies. None if none does, or there is none.

    `checkpoints` is oldest first, as in the record.
    """
    for checkpoint in reversed(checkpoints):
        path = folder / f"checkpoint-{checkpoint.step}"
        shutil.rmtree(path, ignore_errors=True)
        try:
            download_folder(storage, checkpoint.key, checkpoint.manifest_sha256, path)
        except Rejected as reason:
            _log.error("checkpoint %s is passed over: %s", checkpoint.key, reason)
            shutil.rmtree(path, ignore_errors=True)
            on_rejected(checkpoint, str(reason))
            continue
        return Restored(checkpoint, path)
    if checkpoints:
        _log.error("none of %d checkpoints is sound: training starts at step 0", len(checkpoints))
    return None
