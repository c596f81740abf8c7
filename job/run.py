"""The batch job from top to bottom: with `job.stages.opening` the only place that builds concrete
objects.

    storage probed → attempt claimed → data fetched, checked, masked, split → fingerprint agreed
    → newest sound checkpoint restored → model loaded → trained → evaluated → adapter published
    → report → recorded as finished

Everything that a CPU can refuse comes before the model's weights are fetched. The record says
`succeeded` in the same swap that names the adapter, and never before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from job import exports
from job.config import Settings
from job.dataset import fetch
from job.engines import choose_engine, prepare_environment
from job.errors import JobError
from job.ledger import (
    FINISHED,
    Heartbeat,
    RunRecord,
    give_up_without_progress,
    read_record,
)
from job.lifecycle import StopToken
from job.logs import LogContext
from job.metrics import BuildInfo, Health, Metrics, MetricsServer
from job.model import look_at, recorded_revision
from job.ranks import JoinedRanks
from job.stages import fingerprint
from job.stages.agreement import agree_on_fingerprint, validation_changed
from job.stages.closing import close_attempt, end_trackers, farewell, last_words, recorded_progress
from job.stages.context import Run
from job.stages.data import prepare_data
from job.stages.evaluation import evaluate_model, judge_of
from job.stages.finished import already_finished
from job.stages.handover import tell_sources, tell_start
from job.stages.monitor import OnProgress
from job.stages.opening import claim_run
from job.stages.publishing import publish_adapter
from job.stages.report import report_failure
from job.stages.training import load_model, restore, train_model
from job.stages.workdir import work_dir
from job.storage import Storage, open_storage
from job.version import __version__
from job.watchdog import Watch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """How a run ended that ended well."""

    run_uri: str
    adapter_uri: str
    step: int
    """Of the adapter's weights."""
    attempts: int
    results: dict[str, Any]
    """Tool-call evaluation and gate verdict, as in `run.json`."""


def run_job(
    settings: Settings,
    *,
    on_progress: OnProgress | None = None,
    stop: StopToken | None = None,
    context: LogContext | None = None,
    watch: Watch | None = None,
    ranks: JoinedRanks | None = None,
) -> RunResult:
    """Run, or resume, the run that `settings` describes.

    `on_progress` is called on the training thread after each optimizer step. Raises what
    `job.errors` lists; the record has been closed accordingly by then. Handles no signals itself:
    whoever owns the process calls `stop.install()`, and may have a `watch` over it. With
    `ranks`, this is rank 0 of several, which the others follow (`job.distributed.follower`).
    """
    stop = stop or StopToken()
    stop.grace_seconds = settings.grace_seconds
    context = context or LogContext(settings.run_id, interactive=False)
    with work_dir(settings) as folder:
        prepare_environment(folder)
        metrics = Metrics(_build_info(settings))
        metrics.limits(
            grace=settings.grace_seconds, save=settings.save_seconds, stall=settings.stall_seconds
        )
        storage = open_storage(settings.run_uri, metrics)
        health = Health(metrics, settings.stall_seconds)
        # Before anything that may take long, as a large adapter's verification: whoever finds
        # nobody at the port kills the pod.
        with MetricsServer(metrics.registry, settings.metrics_port, metrics.progress, health):
            found = read_record(storage)
            was_finished = found is not None and found[0].status in FINISHED
            size = ranks.size if ranks else 1
            if found and (record := already_finished(settings, storage, found, folder, size)):
                return _result(record, storage)
            run = claim_run(
                settings, folder, storage, metrics, stop, context, on_progress, was_finished, ranks
            )
            if watch is not None:
                watch.last_words = last_words(run.ledger, run.uploader, metrics, stop)
                watch.progress = metrics.progress
            with _background(run):
                record = _attempt(run)
            end_trackers(run, 0)
            metrics.ending(0)
            farewell(settings, metrics, stop)
            return _result(record, storage)


def _attempt(run: Run) -> RunRecord:
    """All stages; where they end otherwise than by finishing the run, the record says how."""
    try:
        with run.stop.told_apart():
            return _stages(run)
    except BaseException as error:
        end = close_attempt(run.ledger, run.uploader, run.metrics, run.stop, error)
        report_failure(run, end)
        end_trackers(run, getattr(end, "exit_code", JobError.exit_code))
        farewell(run.settings, run.metrics, run.stop, end)
        if end is not error:
            raise end from error
        raise


def _stages(run: Run) -> RunRecord:
    settings, metrics = run.settings, run.metrics
    run.replace_older_attempts()
    give_up_without_progress(run.ledger, settings.max_attempts_without_progress)

    metrics.phase("data")
    record = run.ledger.record
    run = replace(run, settings=fingerprint.at_same_batch(settings, record, run.size))
    settings = run.settings
    pins = fingerprint.pins(record, settings, run.size)
    model = look_at(
        settings,
        run.work_dir,
        recorded_revision(record, settings),
        observer=metrics,
        alive=metrics.moved,
    )
    if wanted := exports.wanted(settings):
        exports.check(settings, model, run.work_dir)
        _log.info("exports besides the adapter: %s", ", ".join(wanted))
    files = fetch(settings.dataset_uri, run.work_dir / "data", metrics, pins, settings.output_uri)
    tell_sources(run, files, model)
    data, reading = prepare_data(run, files, model)

    engine = choose_engine(settings.engine, settings.trusts_model, record.had_card)
    metrics.engine_chosen(engine.name)
    accepted = agree_on_fingerprint(run, files, model, engine, data)
    restored = restore(run)
    changed = validation_changed(run.ledger.record, restored, accepted)
    tell_start(run, restored, model, changed)

    metrics.phase("model")
    loaded = load_model(run, engine, model)

    metrics.phase("training")
    judge = judge_of(run, engine, loaded, model.chat, data)
    trained = train_model(run, engine, loaded, data, restored, judge, accepted, changed)

    metrics.phase("evaluation")
    evaluation = evaluate_model(run, engine, loaded, model.chat, reading)

    metrics.phase("publishing")
    return publish_adapter(run, model, loaded, data, trained, evaluation)


@contextmanager
def _background(run: Run) -> Iterator[None]:
    def progress() -> Any:
        return recorded_progress(run.metrics, run.ledger)

    seconds = run.settings.heartbeat_seconds
    with run.uploader, Heartbeat(run.ledger, progress, run.stop, seconds):
        yield


def _build_info(settings: Settings) -> BuildInfo:
    return BuildInfo(
        version=__version__,
        engine=settings.engine,
        profile=settings.profile,
        model=settings.base_model,
    )


def _result(record: RunRecord, storage: Storage) -> RunResult:
    adapter = record.adapter
    if adapter is None:
        raise AssertionError("a finished record names its adapter")
    return RunResult(
        run_uri=storage.uri,
        adapter_uri=f"{storage.uri}/{adapter.key}",
        step=adapter.step,
        attempts=record.attempt,
        results=record.results,
    )
