"""Back to the newest sound checkpoint: what fails its check is passed over for the next older."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.checkpoint.manifest import Rejected
from job.checkpoint.transfer import download_folder
from job.errors import JobError, OutOfDisk
from job.ledger.record import Checkpoint
from job.storage.base import Storage
from job.storage.patience import Patience

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
    *,
    check: Callable[[Path], None] = lambda _path: None,
    patiently: Patience | None = None,
) -> Restored | None:
    """Download the newest checkpoint that verifies. None if none does, or there is none.

    `checkpoints` is oldest first, as in the record. `check` may raise `Rejected` for what has
    arrived as it was sent and is still of no use. One that storage does not give out (access
    refused, archived, a server error each time that `patiently` tries) is passed over too if an
    older one can be had; if none can, it is storage that fails: its error is raised, since to
    begin anew would throw sound checkpoints away.
    """
    patiently = patiently or Patience(0)
    withheld: list[tuple[Checkpoint, JobError]] = []
    for checkpoint in reversed(checkpoints):
        path = folder / f"checkpoint-{checkpoint.step}"
        try:
            fetch_checkpoint(storage, checkpoint.key, checkpoint.manifest_sha256, path, patiently)
            check(path)
        except Rejected as reason:
            _log.error("checkpoint %s is passed over: %s", checkpoint.key, reason)
            on_rejected(checkpoint, str(reason))
        except OutOfDisk:
            raise
        except JobError as error:
            _log.error("checkpoint %s can't be read: %s", checkpoint.key, error)
            withheld.append((checkpoint, error))
        else:
            for passed_over, why in withheld:
                on_rejected(passed_over, str(why))
            return Restored(checkpoint, path)
        shutil.rmtree(path, ignore_errors=True)
    if withheld:
        raise withheld[0][1]
    if checkpoints:
        _log.error("none of %d checkpoints is sound: training starts at step 0", len(checkpoints))
    return None


def fetch_checkpoint(
    storage: Storage, key: str, manifest_sha256: str, path: Path, patiently: Patience
) -> None:
    """To `path`, verified. Raises `Rejected` for one that is damaged twice, and the storage's own
    error where `patiently` has ended."""

    def download() -> None:
        shutil.rmtree(path, ignore_errors=True)
        download_folder(storage, key, manifest_sha256, path)

    try:
        patiently(download)
    except Rejected as reason:
        _log.warning("checkpoint %s is fetched once more: %s", key, reason)
        patiently(download)  # what was damaged may be the way here, not the checkpoint
