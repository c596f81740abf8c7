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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from job.checkpoint import Rejected, fetch_checkpoint
from job.config import Settings
from job.dataset import DataFile, DataObject, PreparedData, PrepareOptions, fetch, prepare
from job.engines import choose_engine, prepare_environment
from job.errors import DataError, JobError, Preempted, Problem
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Health, Metrics, MetricsServer
from job.model import BaseModel, look_at
from job.ranks import AllOver, End, JoinedRanks, PeerLost, StoppedTogether
from job.stages.context import PREPARED, RESTORE_PATIENCE_SECONDS, RESTORED, patience
from job.stages.handover import SOURCES, START, node_topic
from job.stages.workdir import work_dir
from job.storage import open_storage
from job.version import __version__

_log = logging.getLogger(__name__)

_LIFE_SECONDS: Final = 1.0
"""Between two life signs of one who waits for rank 0."""


def follow(settings: Settings, ranks: JoinedRanks, stop: StopToken) -> str:
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
        given = {"gradient_accumulation_steps": sources["gradient_accumulation_steps"]}
        settings = settings.model_copy(update={**given, "report_to": ()})
        if leads := ranks.place.leads_node:
            folder = own / f"node-{ranks.place.node}"
            folder.mkdir(exist_ok=True)
        else:
            folder = Path(ranks.hear(node_topic(ranks.place.node))["work_dir"])
        follower = _Follower(settings, ranks, stop, metrics, sources, folder)
        if leads:
            follower.bring()
        follower.train()
        return follower.wait()


def follow_late(settings: Settings, ranks: JoinedRanks) -> str:
    """As `follow`, for one that takes the place of a process which has trained to the end: there is
    nothing left to do but to end as rank 0 does."""
    _log.info("training was over before this process came; rank 0 evaluates and publishes")
    metrics = Metrics(BuildInfo(__version__, settings.engine, settings.profile, ""))
    with _served(settings, ranks, metrics):
        return _ended_with_owner(ranks, metrics)


@contextmanager
def _served(settings: Settings, ranks: JoinedRanks, metrics: Metrics) -> Iterator[None]:
    """Each node's pod has its own `/healthz`. The run's metrics are rank 0's alone: beside them
    these would be a second phase of the same run."""
    if not ranks.place.leads_node:
        yield
        return
    health = Health(metrics, settings.stall_seconds)
    place: Callable[[], dict[str, Any]] = partial(dict, rank=ranks.rank, node=ranks.place.node)
    with MetricsServer(CollectorRegistry(), settings.metrics_port, place, health):
        yield


@dataclass(frozen=True)
class _Follower:
    """A rank that knows what to work on."""

    settings: Settings
    ranks: JoinedRanks
    stop: StopToken
    metrics: Metrics
    sources: Mapping[str, Any]
    """What rank 0 told."""
    node_dir: Path
    """The folder that the ranks of this node share."""

    @property
    def folder(self) -> Path:
        """Of the present attempt."""
        return self.node_dir / str(self.sources["attempt"])

    def bring(self) -> None:
        """To this node, for all of its ranks: data while rank 0 prepares its own, then the rest."""
        for older in self.node_dir.glob("attempt-*"):
            shutil.rmtree(older, ignore_errors=True)
        model, files = self._model(), self._files()
        try:
            self._prepared(model, files)
        except DataError:
            # Rank 0 reads the same rows. Said first by us, it would be cut off before it has stored
            # its report of them.
            if end := _owners_end(self.ranks, self.metrics, self.settings.rank_join_seconds):
                raise end.as_cause() from None
            raise
        model.source.model_dir()
        if checkpoint := self.ranks.hear(START)["checkpoint"]:
            self._restore(checkpoint)
        self.ranks.tell(node_topic(self.ranks.place.node), {"work_dir": str(self.node_dir)})

    def train(self) -> None:
        """Raises `Preempted` once all have stopped, or what rank 0 ended with."""
        model = self._model()
        data = self._prepared(model, self._files())
        had_card = self.sources["had_card"]
        engine = choose_engine(self.settings.engine, self.settings.trusts_model, had_card)
        start = self.ranks.hear(START)
        loaded = engine.load(model.source.model_dir(), self.settings.hyperparameters())
        from job.training import Fit, Judge, Resume, TrainingData, train

        every = self.settings.eval_generate_every
        resume = None
        if checkpoint := start["checkpoint"]:
            changed = start["validation_changed"]
            resume = Resume(self._restored(checkpoint), validation_changed=changed)
        try:
            train(
                engine,
                loaded,
                TrainingData(data.train, data.evaluation),
                self.settings,
                _Silent(self.metrics),
                self.stop,
                self.folder / f"rank-{self.ranks.rank:03d}",
                resume,
                fit=Fit(**start["fit"]) if start["fit"] else None,
                judge=Judge(dict, every) if every else None,  # rank 0 generates, we wait
                ranks=self.ranks,
                on_trained=self.ranks.trained,
            )
        except Preempted as stopped:
            if not self.ranks.trains:
                raise  # rank 0 goes on without us
            raise self._end_of_all(stopped) from None

    def _end_of_all(self, stopped: Preempted) -> BaseException:
        """All have stopped together. Rank 0 still uploads, and may yet fail with another code, of
        which it writes a report first: only who is wanted elsewhere has no time for that."""
        self.stop.leaving()
        end: End | None = None
        with self.stop.deferred():
            try:
                while end is None and not (self.stop.signalled and self.stop.seconds_left() <= 0):
                    self.metrics.micro_step_done()
                    end = self.ranks.owners_end(_LIFE_SECONDS)
            except PeerLost as lost:
                failed = isinstance(stopped, StoppedTogether) and stopped.failed
                return lost if failed else stopped
        return end.as_cause() if end is not None and end.code else stopped

    def wait(self) -> str:
        """For rank 0, which evaluates and publishes; the pods of a run end together, and alike."""
        _log.info("training is over; rank 0 evaluates and publishes")
        return _ended_with_owner(self.ranks, self.metrics)

    def _model(self) -> BaseModel:
        revision, moved = self.sources["revision"], self.metrics.moved
        return look_at(self.settings, self.node_dir, revision, observer=self.metrics, alive=moved)

    def _files(self) -> list[DataFile]:
        pins = [DataObject(**pin) for pin in self.sources["pins"]]
        settings, folder = self.settings, self.node_dir / "data"
        return fetch(settings.dataset_uri, folder, self.metrics, pins, settings.output_uri)

    def _prepared(self, model: BaseModel, files: list[DataFile]) -> PreparedData:
        options = PrepareOptions.from_settings(self.settings, model.position_limit)
        return prepare(files, model.chat, options, self.folder / PREPARED, self.metrics.moved)

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        """As rank 0 does, but that very one: all have to start from the same."""
        storage, key = open_storage(self.settings.run_uri, self.metrics), checkpoint["key"]
        digest, path = checkpoint["manifest_sha256"], self._restored(checkpoint)
        patiently = patience(RESTORE_PATIENCE_SECONDS, self.metrics, self.stop)
        try:
            fetch_checkpoint(storage, key, digest, path, patiently)
        except Rejected as reason:
            hint = "rank 0 has it whole: look at this node's network and its work volume"
            found = f"arrives damaged on this node: {reason}"
            raise JobError(Problem(f"{storage.uri}/{key}", found, hint)) from reason

    def _restored(self, checkpoint: Mapping[str, Any]) -> Path:
        return self.folder / RESTORED / f"checkpoint-{checkpoint['step']}"


def _ended_with_owner(ranks: JoinedRanks, metrics: Metrics) -> str:
    end = _owners_end(ranks, metrics)
    if end is not None and end.code:
        raise end.as_cause()
    return "succeeded with rank 0"


def _owners_end(ranks: JoinedRanks, metrics: Metrics, seconds: float = math.inf) -> End | None:
    """How rank 0 ends, waited for with life signs; None when time runs out."""
    until, end = time.monotonic() + seconds, None
    while end is None and time.monotonic() < until:
        metrics.micro_step_done()
        end = ranks.owners_end(_LIFE_SECONDS)
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
