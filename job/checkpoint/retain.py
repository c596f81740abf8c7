"""Which checkpoints stay: the newest few, and the best by validation loss."""

from __future__ import annotations

import logging
import math

from job.ledger.ledger import Ledger
from job.ledger.record import Checkpoint, RunRecord
from job.storage.base import Storage

_log = logging.getLogger(__name__)


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


def unlist(ledger: Ledger, checkpoints: list[Checkpoint]) -> None:
    """Take checkpoints out of the record. Their files may only go after this."""
    keys = {c.key for c in checkpoints}

    def change(record: RunRecord) -> None:
        record.checkpoints = [c for c in record.checkpoints if c.key not in keys]

    ledger.update(change)


def unlist_superfluous(ledger: Ledger, keep: int) -> list[Checkpoint]:
    """What left the record, and whose files may go now."""
    gone = superfluous(ledger.record.checkpoints, keep)
    if gone:
        unlist(ledger, gone)
    return gone


def delete_files(storage: Storage, checkpoints: list[Checkpoint]) -> None:
    """Of checkpoints that are not listed any more. May be called again after a failure."""
    for checkpoint in checkpoints:
        storage.delete([info.key for info in storage.list(checkpoint.key)])
        _log.info("checkpoint %s removed: newer and better ones are kept", checkpoint.key)
