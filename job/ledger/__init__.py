"""The run's record: its schema, its compare-and-swap, its heartbeat, its fingerprint."""

from job.ledger.difference import Difference, refuse_too_late
from job.ledger.fenced import put
from job.ledger.fingerprint import compare, flatten, versions
from job.ledger.heartbeat import Heartbeat
from job.ledger.ledger import RECORD_KEY, Ledger, read_record
from job.ledger.livelock import give_up_without_progress
from job.ledger.record import (
    FINISHED,
    Adapter,
    Attempt,
    Checkpoint,
    Export,
    Holder,
    MicroBatch,
    Pace,
    Progress,
    Rejection,
    RunRecord,
    Status,
    now,
    seconds_since,
)
from job.ledger.settled import settle_promotion
from job.ledger.timeline import gpu_hours, held_seconds, spans

__all__ = [
    "FINISHED",
    "RECORD_KEY",
    "Adapter",
    "Attempt",
    "Checkpoint",
    "Difference",
    "Export",
    "Heartbeat",
    "Holder",
    "Ledger",
    "MicroBatch",
    "Pace",
    "Progress",
    "Rejection",
    "RunRecord",
    "Status",
    "compare",
    "flatten",
    "give_up_without_progress",
    "gpu_hours",
    "held_seconds",
    "now",
    "put",
    "read_record",
    "refuse_too_late",
    "seconds_since",
    "settle_promotion",
    "spans",
    "versions",
]
