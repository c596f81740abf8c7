"""Which checkpoints stay: the newest few, and the best by validation loss."""

from __future__ import annotations

import logging
import math
import re

from job.ledger.ledger import Ledger
from job.ledger.record import Checkpoint, RunRecord
from job.storage.base import Storage

CHECKPOINTS = "checkpoints/"

_log = logging.getLogger(__name__)
_FOLDER = re.compile(rf"{CHECKPOINTS}(\d+)-(\d+)/")


def key_of(step: int, attempt: int) -> str:
    """The folder of a checkpoint: no two attempts ever write to the same."""
    return f"{CHECKPOINTS}{step:08d}-{attempt:03d}/"


def best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest validation loss; the earlier of equals. None if none has one."""
    scored = [c for c in checkpoints if c.eval_loss is not None and math.isfinite(c.eval_loss)]
    return min(scored, key=lambda c: (c.eval_loss, c.step), default=None)


def superfluous(checkpoints: list[Checkpoint], keep: int) -> list[Checkpoint]:
    """Those that are neither among the newest `keep` nor the best."""
    kept = checkpoints[-keep:]
    if (champion := best(checkpoints)) is not None:
        kept = [*kept, champion]
    return [c for c in checkpoints if c not in kept]


def drop(record: RunRecord, checkpoints: list[Checkpoint]) -> None:
    """Out of the record, as part of a change of it. Their files may only go after its swap."""
    keys = {c.key for c in checkpoints}
    record.checkpoints = [c for c in record.checkpoints if c.key not in keys]


def unlist(ledger: Ledger, checkpoints: list[Checkpoint]) -> None:
    """Take checkpoints out of the record, in a swap of its own."""
    ledger.update(lambda record: drop(record, checkpoints))


def delete_files(storage: Storage, checkpoints: list[Checkpoint]) -> None:
    """Of checkpoints that are not listed any more. May be called again after a failure."""
    for checkpoint in checkpoints:
        _delete_folder(storage, checkpoint.key)
        _log.info("checkpoint %s removed: newer and better ones are kept", checkpoint.key)


def collect_orphans(storage: Storage, ledger: Ledger) -> list[str]:
    """Delete the folders that no record lists: of attempts that were killed in an upload, and of
    our own uploads that were superseded. Only while we own the run, and none of ours is under way.

    An older attempt that is still alive is fenced by now: what it has not listed it never will.
    Raises `Fenced`. Returns the folders that are gone.
    """
    listed = {checkpoint.key for checkpoint in ledger.confirm().checkpoints}
    found = {
        match.group(0): int(match.group(2))
        for info in storage.list(CHECKPOINTS)
        if (match := _FOLDER.match(info.key))
    }
    orphans = [
        key for key, attempt in found.items() if key not in listed and attempt <= ledger.attempt
    ]
    for key in orphans:
        _delete_folder(storage, key)
        _log.info("%s removed: it was never committed", key)
    if forgotten := storage.forget_uploads(CHECKPOINTS):
        _log.info("the parts of %d unfinished uploads were removed", forgotten)
    return orphans


def _delete_folder(storage: Storage, key: str) -> None:
    storage.delete([info.key for info in storage.list(key)])
