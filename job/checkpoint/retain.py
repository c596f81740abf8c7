"""Which checkpoints stay: the newest few, and the best by validation loss."""

from __future__ import annotations

import logging

from job.ledger.ledger import Ledger
from job.ledger.record import Checkpoint, RunRecord
from job.storage.base import Storage

_log = logging.getLogger(__name__)


def best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the lowest validation loss; the earlier of equals. None if none has one."""
    scored = [c for c in checkpoints if c.eval_loss is not None]
    return min(scored, key=lambda c: (c.eval_loss, c.step), default=None)


def superfluous(checkpoints: list[Checkpoint], keep: int) -> list[Checkpoint]:
    """Those that are neither among the newest `keep` nor the best."""
    kept = checkpoints[-keep:]
    if (champion := best(checkpoints)) is not None:
        kept = [*kept, champion]
    return [c for c in checkpoints if c not in kept]


def unlist(ledger: Ledger, checkpoints: list[Checkpoint]) -> None:
    """Take checkpoints out of the record. Their files may only go after this."""
    keys = {c.key for c in checkpoints}

    def change(record: RunRecord) -> None:
        record.checkpoints = [c for c in record.checkpoints if c.key not in keys]

    ledger.update(change)


def retain(storage: Storage, ledger: Ledger, keep: int) -> None:
    """Remove what is superfluous: out of the record first, then the files."""
    gone = superfluous(ledger.record.checkpoints, keep)
    if not gone:
        return
    unlist(ledger, gone)
    for checkpoint in gone:
        storage.delete([info.key for info in storage.list(checkpoint.key)])
        _log.info("checkpoint %s removed (the newest %d and the best stay)", checkpoint.key, keep)
