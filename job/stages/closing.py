"""How an attempt ends: what there is to save is made durable, the record says why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from job import trackers
from job.checkpoint import CheckpointUploader
from job.config import Settings
from job.errors import AccessDenied, Fenced, JobError, Preempted, Stopped, Unavailable
from job.ledger import FINISHED, Ledger, Progress, Status
from job.lifecycle import TRACKERS_SECONDS, StopToken
from job.metrics import Metrics, push
from job.redact import redact
from job.stages.context import Run

_log = logging.getLogger(__name__)

_RECORD_SECONDS = 2.0
"""Of the grace period, kept for the last swap of `run.json`."""

_UPLOAD_SECONDS = 30.0
"""For a checkpoint on its way up at a failure, or twice as long as one took before."""
_LAST_UPLOAD_SECONDS = 5.0
"""Of the time that `job.watchdog` leaves for last words."""
_LOOK_SECONDS = 0.2

_EVENTS_SECONDS = 3.0
"""Of the grace period; with less left the process ends without a last upload of event files."""
_NO_WAY_THERE = (Unavailable, AccessDenied)


def recorded_progress(metrics: Metrics, ledger: Ledger) -> Progress:
    """For `run.json`. Until training begins, the run is where its last checkpoint left it."""
    progress = Progress.model_validate(metrics.progress())
    before = ledger.record.progress
    progress.step = max(progress.step, before.step)
    progress.max_steps = progress.max_steps or before.max_steps
    progress.losses = metrics.state.loss_history() if metrics.state.restored else before.losses
    return progress


def close_attempt(
    ledger: Ledger,
    uploader: CheckpointUploader,
    metrics: Metrics,
    stop: StopToken,
    error: BaseException,
) -> BaseException:
    """Record the end of an attempt that did not finish the run; what it ends with. Never raises.

    A preempted one first waits for its last checkpoint, as long as the grace period allows. One
    that turns out to be replaced ends with `Fenced`, whatever has gone wrong for it since.
    """
    stop.leaving()
    with stop.deferred():
        metrics.ending(getattr(error, "exit_code", JobError.exit_code))
        if isinstance(error, Fenced):
            return error  # the record belongs to somebody else now
        if ledger.record.status in FINISHED:
            # A failed gate, or a promotion that is the next attempt's to make: the code says so.
            metrics.phase("finished")
            return error
        metrics.phase("preempted" if isinstance(error, Preempted) else "failed")
        if isinstance(error, Preempted):
            _save_what_there_is(ledger, uploader, metrics, stop)
        elif not isinstance(error, _NO_WAY_THERE):
            seconds = max(_UPLOAD_SECONDS, 2 * ledger.record.pace.upload_seconds)
            _finish_upload(uploader, seconds, stop)
        return _recorded(ledger, metrics, error)


def _recorded(
    ledger: Ledger, metrics: Metrics, error: BaseException, more: str = ""
) -> BaseException:
    """What the attempt ends with, `error` having been recorded where that could be."""
    try:
        _record_end(ledger, metrics, error, more)
    except Fenced as fenced:
        _log.error("this attempt was replaced; it was about to end with: %s", error)
        return fenced
    except JobError as failure:
        _log.error("the end of this attempt could not be recorded: %s", failure)
    except Exception:  # noqa: BLE001
        # What ended the run is on its way up, and must not be replaced by this.
        _log.exception("the end of this attempt could not be recorded")
    return error


def _record_end(ledger: Ledger, metrics: Metrics, error: BaseException, more: str) -> None:
    status: Status = "preempted" if isinstance(error, Preempted) else "failed"
    code = getattr(error, "exit_code", JobError.exit_code)
    reason = redact(str(error)) or type(error).__name__
    ledger.close(status, code, reason + more, recorded_progress(metrics, ledger))


def last_words(
    ledger: Ledger, uploader: CheckpointUploader, metrics: Metrics, stop: StopToken
) -> Callable[[BaseException], None]:
    """For a process that can't wait for its main thread, as that waits for a rank that is lost, or
    takes no notice of a signal: the record says at least why it ended.

    A checkpoint on its way up has a few seconds, while nobody wants the pod.
    """

    def say(cause: BaseException) -> None:
        if isinstance(cause, Fenced) or ledger.record.status in FINISHED:
            return
        if not stop.signalled and not isinstance(cause, _NO_WAY_THERE):
            _finish_upload(uploader, _LAST_UPLOAD_SECONDS, stop)
        more = ", and could not end in time" if isinstance(cause, Preempted) else ""
        _recorded(ledger, metrics, cause, more)

    return say


def _save_what_there_is(
    ledger: Ledger, uploader: CheckpointUploader, metrics: Metrics, stop: StopToken
) -> None:
    done = uploader.flush(max(0.0, stop.seconds_left() - _RECORD_SECONDS))
    durable = ledger.record.durable_step
    step = metrics.progress()["step"]
    if durable < step:
        why = "its upload failed" if done else "the grace period is too short for its upload"
        _log.error("steps %d to %d are lost: %s", durable + 1, step, why)
    else:
        _log.info("everything up to step %d is durable", step)


def _finish_upload(uploader: CheckpointUploader, seconds: float, stop: StopToken) -> None:
    """What was on its way when a peer was lost or memory ran out: else the next attempt trains it
    once more. Whoever wants the pod meanwhile gets it."""
    until = time.monotonic() + seconds
    while not uploader.flush(_LOOK_SECONDS) and time.monotonic() < until and not stop.signalled:
        pass


def farewell(settings: Settings, metrics: Metrics, stop: StopToken, error: object = None) -> None:
    """A last push of the metrics, and time for a last scrape, which any signal ends.

    A pod that is wanted elsewhere goes at once. Any other end is scraped, one before training too:
    alerts go by the exit code. The signal is deferred: it must not turn how the run ended into a
    preemption.
    """
    with stop.deferred():
        if isinstance(error, Stopped) or _is_wanted_gone(stop):
            return
        if settings.pushgateway_url:
            push(settings.pushgateway_url, metrics, settings.run_id)
        until = time.monotonic() + settings.metrics_linger_seconds
        while time.monotonic() < until and not _is_wanted_gone(stop):
            time.sleep(min(0.1, max(0.0, until - time.monotonic())))


def _is_wanted_gone(stop: StopToken) -> bool:
    """Not so where the run itself asked to stop, as after a failed upload: that is worth a look."""
    return stop.signalled or isinstance(stop.cause, Stopped)


def end_trackers(run: Run, exit_code: int) -> None:
    """Trackers hear how the attempt ended, and their files go to storage; where none was asked
    for, nothing happens."""
    seconds = TRACKERS_SECONDS
    if run.stop.signalled:
        seconds = min(seconds, run.stop.seconds_left() / 2)
        if run.stop.seconds_left() < _EVENTS_SECONDS:
            return
    with run.stop.deferred():  # a signal must not turn how the run ended into a preemption
        if run.settings.report_to:
            trackers.end(exit_code, seconds / len(run.settings.report_to))
            trackers.upload_files(run.storage, run.own_dir, run.ledger.attempt)
