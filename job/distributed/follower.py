"""What a rank other than 0 does: its share of training, and nothing of the run's record.

    hears what to work on → data fetched, checked, masked, split as rank 0 has → checkpoint brought
    → model loaded → trained → waits for how rank 0 ends, and ends so

The first rank of each node brings things to a folder of that node, for nodes may share a volume;
the others of the node read them there. Nothing is written to storage.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from job.checkpoint import Rejected, fetch_checkpoint
from job.config import Settings
from job.dataset import DataFile, DataObject, PreparedData, PrepareOptions, fetch, prepare
from job.engines import LoadedModel, choose_engine, prepare_environment
from job.errors import DataError, JobError, Preempted, Problem
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Health, Metrics, MetricsServer
from job.model import BaseModel, look_at
from job.ranks import AllOver, End, Fellowship
from job.stages.context import PREPARED, RESTORE_PATIENCE_SECONDS, RESTORED, patience
from job.stages.handover import SOURCES, START, node_topic
from job.stages.workdir import work_dir
from job.storage import Patience, open_storage
from job.version import __version__

_log = logging.getLogger(__name__)


def follow(settings: Settings, ranks: Fellowship, stop: StopToken) -> str:
    """Take part in the run that rank 0 owns; how that ended, if it ended well.

    Raises what rank 0 ended with, under the same exit code, and what goes wrong here.
    """
    stop.grace_seconds = settings.grace_seconds
    metrics = Metrics(BuildInfo(__version__, settings.engine, settings.profile, ""))
    with _served(settings, ranks, metrics), work_dir(settings) as own:
        prepare_environment(own)
        try:
            sources = ranks.hear(SOURCES)
        except AllOver:
            _log.info("rank 0 found the run finished: there is nothing to train")
            return "the run was finished before"
        accumulation = sources["gradient_accumulation_steps"]
        settings = settings.model_copy(update={"gradient_accumulation_steps": accumulation})
        settings = settings.model_copy(update={"report_to": ()})
        attempt = sources["attempt"]
        if ranks.place.leads_node:
            folder = own / f"node-{ranks.place.node}"
            folder.mkdir(exist_ok=True)
            _bring(settings, ranks, stop, sources, folder, attempt, metrics)
        else:
            folder = Path(ranks.hear(node_topic(ranks.place.node))["work_dir"])
        files, model = _looked_at(settings, sources, folder, metrics)
        data = _prepared(settings, files, model, folder / attempt, metrics)
        _train(settings, ranks, stop, model, data, folder / attempt, metrics)
        return _wait(ranks, metrics)


@contextmanager
def _served(settings: Settings, ranks: Fellowship, metrics: Metrics) -> Iterator[None]:
    """Each node's pod has its own `/healthz`. The run's metrics are rank 0's alone: beside them
    these would be a second phase of the same run."""
    if not ranks.place.leads_node:
        yield
        return
    health = Health(metrics, settings.stall_seconds)
    place: Callable[[], dict[str, Any]] = partial(dict, rank=ranks.rank, node=ranks.place.node)
    with MetricsServer(CollectorRegistry(), settings.metrics_port, place, health):
        yield


def _looked_at(
    settings: Settings, sources: dict[str, Any], folder: Path, metrics: Metrics
) -> tuple[list[DataFile], BaseModel]:
    pins = [DataObject(**pin) for pin in sources["pins"]]
    revision = sources["revision"]
    model = look_at(settings, folder, revision, observer=metrics, alive=metrics.moved)
    return fetch(settings.dataset_uri, folder / "data", metrics, pins), model


def _bring(
    settings: Settings,
    ranks: Fellowship,
    stop: StopToken,
    sources: dict[str, Any],
    folder: Path,
    attempt: str,
    metrics: Metrics,
) -> None:
    """To this node, for all of its ranks: data while rank 0 prepares its own, then the rest."""
    for older in folder.glob("attempt-*"):
        shutil.rmtree(older, ignore_errors=True)
    files, model = _looked_at(settings, sources, folder, metrics)
    try:
        _prepared(settings, files, model, folder / attempt, metrics)
    except DataError:
        # Rank 0 reads the same rows. Said first by us, it would be cut off before it has stored its
        # report of them.
        if end := _owners_end(ranks, metrics, settings.rank_join_seconds):
            raise end.as_cause() from None
        raise
    model.source.model_dir()
    if checkpoint := ranks.hear(START)["checkpoint"]:
        patiently = patience(RESTORE_PATIENCE_SECONDS, metrics, stop)
        _restore(settings, checkpoint, folder / attempt / RESTORED, metrics, patiently)
    ranks.tell(node_topic(ranks.place.node), {"work_dir": str(folder)})


def _restore(
    settings: Settings,
    checkpoint: dict[str, Any],
    folder: Path,
    metrics: Metrics,
    patiently: Patience,
) -> None:
    """As rank 0 does, but that very one: all have to start from the same."""
    storage, key = open_storage(settings.run_uri, metrics), checkpoint["key"]
    path = folder / f"checkpoint-{checkpoint['step']}"
    try:
        fetch_checkpoint(storage, key, checkpoint["manifest_sha256"], path, patiently)
    except Rejected as reason:
        hint = "rank 0 has it whole: look at this node's network and its work volume"
        found = f"arrives damaged on this node: {reason}"
        raise JobError(Problem(f"{storage.uri}/{key}", found, hint)) from reason


def _prepared(
    settings: Settings, files: list[DataFile], model: BaseModel, folder: Path, metrics: Metrics
) -> PreparedData:
    options = PrepareOptions.from_settings(settings, model.position_limit)
    return prepare(files, model.chat, options, folder / PREPARED, metrics.moved)


def _train(
    settings: Settings,
    ranks: Fellowship,
    stop: StopToken,
    model: BaseModel,
    data: PreparedData,
    folder: Path,
    metrics: Metrics,
) -> None:
    engine = choose_engine(settings.engine, settings.trusts_model)
    start = ranks.hear(START)
    loaded: LoadedModel = engine.load(model.source.model_dir(), settings.hyperparameters())
    from job.training import Fit, Judge, TrainingData, train

    every = settings.eval_generate_every
    checkpoint = start["checkpoint"]
    try:
        train(
            engine,
            loaded,
            TrainingData(data.train, data.evaluation),
            settings,
            _Silent(metrics),
            stop,
            folder / f"rank-{ranks.rank:03d}",
            folder / RESTORED / f"checkpoint-{checkpoint['step']}" if checkpoint else None,
            fit=Fit(**start["fit"]) if start["fit"] else None,
            judge=Judge(dict, every) if every else None,  # rank 0 generates, we wait
            ranks=ranks,
        )
    except Preempted:
        # All have stopped together. Rank 0 still uploads, and may yet fail with another code.
        stop.leaving()
        with stop.deferred():
            end = ranks.owners_end(stop.seconds_left())
        if end is not None and end.code:
            raise end.as_cause() from None
        raise
    ranks.trained()


def _wait(ranks: Fellowship, metrics: Metrics) -> str:
    """For rank 0, which evaluates and publishes; the pods of a run end together, and alike."""
    _log.info("training is over; rank 0 evaluates and publishes")
    end = _owners_end(ranks, metrics)
    if end is not None and end.code:
        raise end.as_cause()
    return "succeeded with rank 0"


def _owners_end(ranks: Fellowship, metrics: Metrics, seconds: float = math.inf) -> End | None:
    """How rank 0 ends, waited for with life signs; None when time runs out."""
    until, end = time.monotonic() + seconds, None
    while end is None and time.monotonic() < until:
        metrics.micro_step_done()
        end = ranks.owners_end(1.0)
    return end


class _Silent:
    """Keeps `job.training.TrainingObserver`: it is rank 0 that tells."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def alive(self) -> None:
        self._metrics.micro_step_done()

    def saved(self, saved: Any) -> None:
        shutil.rmtree(saved.folder, ignore_errors=True)

    def fitted(self, fit: Any) -> None: ...
    def began(self, *, step: int, max_steps: int, state: Any, history: Any) -> None: ...
    def stepped(self, step: Any) -> None: ...
    def logged(self, *, step: int, epoch: float, logs: dict[str, float]) -> None: ...
    def continued(self, *, step: int, loss: float) -> None: ...
    def resumed(self, *, step: int, loss: float, expected: float) -> None: ...
