"""The last stage: the adapter published, the report written, the end recorded, in this order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from job import publish
from job.card import CardFacts
from job.checkpoint import collect_orphans
from job.closing import recorded_progress
from job.config import Settings
from job.dataset import PreparedData
from job.engines import LoadedModel
from job.errors import GateFailed, JobError, Problem, Stopped
from job.gate import PASSED, gate_of
from job.ledger import RunRecord, now
from job.promotion import promote
from job.redact import redact
from job.report import build as build_report
from job.stages import ANSWERS_KEY, Run, Trained
from job.storage import Patience, open_storage

_log = logging.getLogger(__name__)

_REPORTED = (70, 71, 81)

_REPORT_SECONDS = 20.0
"""So long the end of a failed run waits for its report to be drawn and stored."""

_LATE = JobError("there is no time left for it")


def publish_adapter(
    run: Run,
    loaded: LoadedModel,
    data: PreparedData,
    trained: Trained,
    evaluation: dict[str, Any] | None,
) -> RunRecord:
    """Upload and verify the adapter, write the report, record the end: in this order.

    Raises `GateFailed` once the candidate is recorded.
    """
    settings = run.settings
    failure = gate_of(settings).verdict(evaluation)
    folder = run.own_dir / "adapter"
    facts = _card_facts(run, data, trained, evaluation)
    publish.save_adapter(loaded.model, loaded.tokenizer, facts, folder)
    patiently = Patience(
        settings.storage_patience_seconds,
        on_failure=lambda _error: run.metrics.moved(),
        pause=run.stop.pause,
    )
    adapter = patiently(
        publish.publish,
        run.storage,
        run.ledger,
        folder,
        step=trained.step,
        promoted=failure is None,
        scratch=run.own_dir / "verify",
    )

    def finish(record: RunRecord) -> None:
        record.status = "gate_failed" if failure else "succeeded"
        record.adapter = adapter
        record.results = {
            "evaluation": _figures(evaluation),
            "gate": failure or _unfailed(settings),
        }
        record.progress = recorded_progress(run.metrics, run.ledger)
        record.progress.phase = "finished"
        record.current.ended_at = now()
        record.current.to_step = record.progress.step
        record.current.exit_code = GateFailed.exit_code if failure else 0
        record.current.reason = failure or "finished"

    final = run.ledger.record.model_copy(deep=True)
    finish(final)
    price, found = settings.gpu_hour_price, data.report
    _send_report(
        run,
        patiently,
        build_report(
            final, trained.history, found.as_dict(), evaluation, price, samples=found.samples
        ),
    )
    with run.stop.deferred():
        record = patiently(run.ledger.update, finish)
        patiently(promote, open_storage(settings.output_uri, run.metrics), run.storage.uri, record)
        run.metrics.phase("finished")
        _tidy(run, adapter.key, folder)
    if failure:
        where = f"the candidate is at {run.storage.uri}/{adapter.key}"
        raise GateFailed(Problem("promotion gate", failure, where))
    return record


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
        until = time.monotonic() + _REPORT_SECONDS
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
        _send_report(run, Patience(_REPORT_SECONDS, pause=pause), report, pause)
    except (Exception, Stopped) as failure:  # noqa: BLE001 - the run's own end is on its way up
        _log.warning("the failed run has no report: %s", redact(str(failure)))
    else:
        _log.info("the report is at %s/report/report.html", run.storage.uri)


def _send_report(
    run: Run,
    patiently: Patience,
    report: Mapping[str, bytes],
    pause: Callable[[float], None] = lambda _seconds: None,
) -> None:
    for name, content in report.items():
        pause(0)
        key = f"report/{name}"
        send = partial(run.storage.write, key, content)
        patiently(publish.put, run.storage, run.ledger, key, send)


def _tidy(run: Run, key: str, folder: Path) -> None:
    """The run is over: nobody comes after us who could do it."""
    try:
        publish.remove_leftovers(run.storage, key, folder)
        run.storage.delete([ANSWERS_KEY])
        collect_orphans(run.storage, run.ledger)
    except JobError as error:
        _log.warning("what earlier attempts have left stays in storage: %s", error)


def _card_facts(
    run: Run, data: PreparedData, trained: Trained, evaluation: dict[str, Any] | None
) -> CardFacts:
    record = run.ledger.record
    recorded = record.fingerprint | {f"model.{name}": said for name, said in record.model.items()}
    return CardFacts(
        run_uri=run.settings.run_uri,
        base_model=run.settings.base_model,
        revision=record.model["revision"],
        step=trained.step,
        settings=asdict(run.settings.hyperparameters()),
        data=data.report.counts,
        fingerprint={name: value for name, value in recorded.items() if value is not None},
        evaluation=evaluation,
        attempts=run.ledger.attempt,
    )


def _unfailed(settings: Settings) -> str:
    return PASSED if gate_of(settings).is_set else "not set"


def _figures(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """What fits a record that is written every few seconds: no examples."""
    if evaluation is None:
        return None
    return {name: value for name, value in evaluation.items() if name != "examples"}
