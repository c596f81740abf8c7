"""How an attempt begins: the store is probed, the run claimed, what all stages share is built."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from job import trackers
from job.checkpoint import CheckpointUploader, Committed, Grace
from job.config import Settings
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.logs import LogContext
from job.metrics import Metrics
from job.promotion import check_promotion
from job.ranks import JoinedRanks
from job.stages.context import Run
from job.stages.monitor import Monitor, OnProgress
from job.stages.workdir import attempt_name
from job.storage import Storage, probe
from job.version import __version__

_log = logging.getLogger(__name__)


def claim_run(
    settings: Settings,
    work_dir: Path,
    storage: Storage,
    metrics: Metrics,
    stop: StopToken,
    context: LogContext,
    on_progress: OnProgress | None,
    was_finished: bool,
    ranks: JoinedRanks | None,
) -> Run:
    """A new attempt at the run, which fences all older ones. `ranks` are those that train together;
    `was_finished` says that a finished run is opened again, as its adapter is damaged.

    Raises what storage raises, and `Fenced` where another attempt has just finished the run.
    """
    conditional_writes = probe(storage)
    check_promotion(settings)
    _announce(conditional_writes, storage, metrics)
    ledger = Ledger.claim(
        storage.reopened(metrics.bookkeeping),
        settings.run_id,
        version=__version__,
        conditional_writes=conditional_writes,
        processes=ranks.size if ranks else 1,
        reopens=was_finished,
    )
    context.update(attempt=ledger.attempt)
    progress = ledger.record.progress
    metrics.attempt(ledger.attempt, step=progress.step, max_steps=progress.max_steps)
    _log.info("attempt %d at %s", ledger.attempt, storage.uri)
    grace = Grace(settings.grace_seconds, ledger.record.pace, metrics.grace_needed)
    own_dir = work_dir / attempt_name(ledger.attempt, ledger.record.created_at)
    on_committed = _committed(metrics, stop, storage, own_dir, ledger.attempt)
    uploader = _uploader(settings, storage, metrics, stop, ledger, grace, on_committed)
    monitor = Monitor(metrics, ledger, uploader, grace, context, on_progress)
    return Run(settings, work_dir, storage, metrics, stop, ledger, uploader, monitor, ranks)


def _announce(conditional_writes: bool, storage: Storage, metrics: Metrics) -> None:
    metrics.conditional_writes(conditional_writes)
    if not conditional_writes:
        _log.warning(
            "%s ignores conditional writes: two attempts at once are told apart only by reading "
            "before writing",
            storage.uri,
        )


def _uploader(
    settings: Settings,
    storage: Storage,
    metrics: Metrics,
    stop: StopToken,
    ledger: Ledger,
    grace: Grace,
    on_committed: Callable[[Committed], None],
) -> CheckpointUploader:
    return CheckpointUploader(
        storage.reopened(metrics),
        ledger,
        stop,
        keep=settings.save_total_limit,
        needs_best=settings.early_stopping_patience > 0,
        patience_seconds=settings.storage_patience_seconds,
        tries=settings.max_upload_failures,
        grace=grace,
        on_committed=on_committed,
        on_failure=metrics.checkpoint_failed,
    )


def _committed(
    metrics: Metrics, stop: StopToken, storage: Storage, own_dir: Path, attempt: int
) -> Callable[[Committed], None]:
    """What the uploader's thread calls for each checkpoint that is durable."""

    def on_committed(committed: Committed) -> None:
        metrics.checkpoint_committed(
            committed.checkpoint.step,
            committed.checkpoint.bytes,
            upload_seconds=committed.upload_seconds,
            commit_seconds=committed.commit_seconds,
        )
        if not stop.requested:  # the grace period is for what can't be trained again
            trackers.upload_files(storage, own_dir, attempt)

    return on_committed
