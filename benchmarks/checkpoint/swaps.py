"""What the record costs: a swap of `run.json`, young and old."""

from __future__ import annotations

import time
from statistics import median

from job.ledger import Attempt, Ledger, Progress, RunRecord
from job.storage import open_storage

SWAPS = 100
HEARTBEAT_SECONDS = 30.0
SAVE_STEPS = 50


def swaps(bucket: str, attempts: int) -> dict[str, float]:
    """Seconds of a swap, and the processor's share of it, which is all that training may feel."""
    storage = open_storage(f"s3://{bucket}/swaps-{attempts}")
    ledger = Ledger.claim(storage, "bench", version="1", conditional_writes=True)
    _age(ledger, attempts)
    walls, processor = [], time.thread_time()
    for step in range(SWAPS):
        began = time.perf_counter()
        ledger.heartbeat(Progress(step=step))
        walls.append(time.perf_counter() - began)
    processor = (time.thread_time() - processor) / SWAPS
    each_second = 1 / HEARTBEAT_SECONDS + 1 / SAVE_STEPS
    return {
        "seconds": median(walls),
        "processor_seconds": processor,
        "share_of_a_step_of_1_s": processor * each_second,
    }


def _age(ledger: Ledger, attempts: int) -> None:
    def change(record: RunRecord) -> None:
        first = record.attempts[0]
        older = [Attempt(number=0, holder=first.holder, reason="x" * 80) for _ in range(attempts)]
        record.attempts = [*older, first]

    ledger.update(change)
