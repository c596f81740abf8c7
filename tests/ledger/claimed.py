"""A claimed run, and what its record says."""

from __future__ import annotations

from job.ledger import Checkpoint, Ledger, RunRecord, read_record
from job.storage import Storage


def claim(storage: Storage, *, conditional_writes: bool = True) -> Ledger:
    return Ledger.claim(storage, "run-1", version="1.2.3", conditional_writes=conditional_writes)


def stored(storage: Storage) -> RunRecord:
    found = read_record(storage)
    assert found is not None
    return found[0]


def commit(ledger: Ledger, step: int) -> None:
    """List a checkpoint, with a change that shows when it is made twice."""
    key = f"checkpoints/{step:08d}-{ledger.attempt:03d}/"
    checkpoint = Checkpoint(
        step=step, attempt=ledger.attempt, key=key, manifest_sha256="0" * 64, bytes=1
    )
    ledger.update(lambda record: record.checkpoints.append(checkpoint))


def steps(record: RunRecord) -> list[int]:
    return [checkpoint.step for checkpoint in record.checkpoints]
