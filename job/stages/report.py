"""The report, stored: at the end of a run, and of one that failed in training as far as it came."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import orjson

from job.errors import JobError, Stopped
from job.ledger import put
from job.lifecycle import REPORT_SECONDS
from job.redact import redact
from job.report import build as build_report
from job.stages.context import Run
from job.storage import Patience

_log = logging.getLogger(__name__)

_REPORTED = (70, 71, 81)

_LATE = JobError("there is no time left for it")


def report_failure(run: Run, error: BaseException) -> None:
    """The report of a run that failed in training (70, 71, 81), as far as it came. Best effort:
    never raises, never waits long, and gives way to a signal at once."""
    code = getattr(error, "exit_code", JobError.exit_code)
    if code not in _REPORTED or not run.monitor.history or run.stop.signalled:
        return
    with run.stop.deferred():
        given_up = threading.Event()
        # A thread, since neither a drawing nor a request can be cut short from the outside.
        writer = threading.Thread(
            target=_write_failure_report, args=(run, given_up), name="report", daemon=True
        )
        writer.start()
        until = time.monotonic() + REPORT_SECONDS
        while writer.is_alive() and time.monotonic() < until and not run.stop.signalled:
            writer.join(0.1)
        given_up.set()
        if writer.is_alive():
            _log.warning("the failed run has no report: it could not be written in time")


def _write_failure_report(run: Run, given_up: threading.Event) -> None:
    def pause(seconds: float) -> None:
        if given_up.wait(seconds):
            raise _LATE

    try:
        run.ledger.check_not_fenced()
        data = orjson.loads(run.storage.read("dataset/report.json")[0])
        history, price = list(run.monitor.history), run.settings.gpu_hour_price
        report = build_report(run.ledger.record, history, data, None, price)
        send_report(run, Patience(REPORT_SECONDS, pause=pause), report, pause)
    except (Exception, Stopped) as failure:  # noqa: BLE001 - the run's own end is on its way up
        _log.warning("the failed run has no report: %s", redact(str(failure)))
    else:
        _log.info("the report is at %s/report/report.html", run.storage.uri)


def send_report(
    run: Run,
    patiently: Patience,
    report: Mapping[str, bytes],
    pause: Callable[[float], None] = lambda _seconds: None,
) -> None:
    for name, content in report.items():
        pause(0)
        key = f"report/{name}"
        send = partial(run.storage.write, key, content)
        patiently(put, run.storage, run.ledger, key, send)
