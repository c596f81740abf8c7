"""A run without a model: claim, restore, heartbeat, checkpoints and an end, all of the job's own.

Each process has a share of the runs, a thread for each. A preempted run is either told (it saves
and says why it ends) or cut off: its threads are left as they are, as on a node that lost its
network, and have to find out that a newer attempt owns the run.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.requests import Requests
from job.checkpoint import CheckpointUploader, Committed, Local, restore_newest
from job.ledger import Heartbeat, Ledger, Progress, RunRecord, read_record
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.storage import NotFound, Observer, Patience, Storage, open_storage, probe, s3_connection
from job.storage.s3_client import open_client

KEEP: Final = 2
STEPS: Final = 50
"""Between two saves."""
_WAIT: Final = 600.0


@dataclass(frozen=True)
class Plan:
    """The same for all runs."""

    root: str
    work: Path
    begin: float
    """Unix time at which all runs start."""
    runs: int
    interval: float
    """Seconds between two saves; a heartbeat comes twice as often."""
    saves: int
    bytes: int
    storm: float
    """Seconds, an interval after the last run has started."""
    preemptions: float
    """Probability that a run is preempted once."""


class Together:
    """What the processes tell each other."""

    def __init__(self, context: Any, processes: int) -> None:
        self.ready = context.Barrier(processes)
        self._claimed = context.Value("i", 0)
        self._settled = context.Value("d", math.inf)

    @property
    def settled(self) -> float:
        """Unix time at which the last run had started; infinite until then."""
        return float(self._settled.value)

    def claimed(self, runs: int) -> None:
        """One of so many has started."""
        with self._claimed.get_lock():
            self._claimed.value += 1
            if self._claimed.value == runs:
                self._settled.value = time.time()

    def storm(self, plan: Plan) -> tuple[float, float]:
        begin = self.settled + plan.interval
        return begin, begin + plan.storm


_together: Together | None = None


def join(together: Together) -> None:
    """In each process, once."""
    global _together
    _together = together
    logging.getLogger("job").setLevel(logging.ERROR)  # a storm is as many warnings
    _one_client_a_run()


def stand_ready(_: int) -> None:
    """Returns once every process has imported what it needs."""
    assert _together is not None
    _together.ready.wait(_WAIT)


@dataclass
class Seen:
    """What the runs of a process went through."""

    lock: Any = field(default_factory=threading.Lock)
    beats: list[float] = field(default_factory=list)
    """Unix times at which heartbeats were due."""
    committed: int = 0
    attempts: int = 0
    restored: int = 0
    violations: list[str] = field(default_factory=list)


def run_share(plan: Plan, numbers: Sequence[int]) -> dict[str, Any]:
    """Run these; returns counts, and what was found wrong."""
    assert _together is not None
    requests, seen = Requests(partial(_together.storm, plan)), Seen()
    with ThreadPoolExecutor(len(numbers)) as pool:
        for number, future in [
            (n, pool.submit(_Run(plan, n, requests, seen).run)) for n in numbers
        ]:
            if (error := future.exception()) is not None:
                seen.violations.append(f"run {number}: {type(error).__name__}: {error}")
    return {
        "requests": [[*key, count] for key, count in requests.sent.items()],
        "begin": plan.begin,
        "storm": _together.storm(plan),
        "settled": _together.settled,
        "beats": seen.beats,
        "committed": seen.committed,
        "attempts": seen.attempts,
        "restored": seen.restored,
        "violations": seen.violations,
    }


def _one_client_a_run() -> None:
    """All attempts of a run share a client, in this process only. Pods make three or four each;
    making one costs as much of a processor as all the requests of a start, and would be most of
    what is measured."""
    make, made = open_client, dict[str, Any]()

    def client_of(where: str, observer: Observer) -> Any:
        if where not in made:
            made[where] = make(where, observer)
        return made[where]

    vars(s3_connection)["open_client"] = client_of


def series_of_a_run() -> int:
    """Samples of one scrape of a run that has saved once."""
    metrics = Metrics(BuildInfo("1", "unsloth", "balanced", "model"))
    metrics.planned(100)
    metrics.step_done(1, 1.0, tokens=1, supervised_tokens=1, samples=1)
    metrics.checkpoint_taken(1, 0.1)
    metrics.checkpoint_committed(1, 1, upload_seconds=1, commit_seconds=1)
    return sum(len(family.samples) for family in metrics.registry.collect())


class _Run:
    def __init__(self, plan: Plan, number: int, requests: Requests, seen: Seen) -> None:
        self._plan = plan
        self._id = f"run-{number:05}"
        self._random = random.Random(number)  # noqa: S311 (the same fleet each time)
        self._requests = requests
        self._seen = seen
        self._work = plan.work / self._id
        self._durable = 0
        self._committed: dict[str, int] = {}
        self._dropped: set[str] = set()

    def run(self) -> None:
        time.sleep(max(0.0, self._plan.begin - time.time()))
        cut = self._random.random() < self._plan.preemptions
        if cut:
            hard = self._random.random() < 0.5
            self._attempt(self._random.uniform(0.5, self._plan.saves - 0.2), hard=hard)
        self._attempt(None, hard=False)
        self._verify()

    def _attempt(self, ends_after: float | None, *, hard: bool) -> None:
        """`ends_after` is in save intervals from its start; None: it finishes the run."""
        plan, stop = self._plan, StopToken()
        storage = self._open()
        ledger = Patience(_WAIT)(self._claim, storage)
        step = self._restore(storage, ledger.record)
        clock = _Clock(step)
        with ExitStack() as stack:
            uploader = CheckpointUploader(
                self._open(),
                ledger,
                stop,
                keep=KEEP,
                needs_best=False,
                patience_seconds=_WAIT,
                on_committed=self._on_committed,
            )
            stack.enter_context(uploader)
            beats = Heartbeat(ledger, lambda: self._beat(clock), stop, plan.interval / 2)
            (beats.__enter__() if hard else stack.enter_context(beats))
            until = None if ends_after is None else time.monotonic() + ends_after * plan.interval
            while clock.step < plan.saves * STEPS:
                if not _sleep(plan.interval, until):
                    break
                clock.step += STEPS
                uploader.submit(self._write(clock.step, ledger.attempt))
            if hard:
                return  # heartbeat and upload go on, as those of a pod without a network
            if not uploader.flush(_WAIT):
                self._wrong("what was handed over did not become durable")
            status: Any = "succeeded" if ends_after is None else "preempted"
            Patience(_WAIT)(ledger.close, status, 0 if ends_after is None else 75, "simulated")
            uploader.settle(_WAIT)

    def _open(self) -> Storage:
        return self._requests.watch(open_storage(f"{self._plan.root}/{self._id}"))

    def _claim(self, storage: Storage) -> Ledger:
        conditional = probe(storage)
        ledger = Ledger.claim(storage, self._id, version="bench", conditional_writes=conditional)
        with self._seen.lock:
            self._seen.attempts += 1
        if ledger.attempt == 1:
            assert _together is not None
            _together.claimed(self._plan.runs)
        return ledger

    def _restore(self, storage: Storage, record: RunRecord) -> int:
        """The step to go on from, once it is sure that it is the newest durable one."""
        if record.durable_step < self._durable:
            self._wrong(f"durable step fell from {self._durable} to {record.durable_step}")
        into = self._work / f"restored-{record.attempt}"
        restored = restore_newest(storage, record.checkpoints, into, patiently=Patience(_WAIT))
        if restored is None:
            return 0
        step = restored.checkpoint.step
        if step != record.durable_step:
            self._wrong(f"restored step {step}, the newest is {record.durable_step}")
        if not (restored.path / "weights.bin").read_bytes().startswith(b"%08d" % step):
            self._wrong(f"the files of step {step} are of another one")
        with self._seen.lock:
            self._seen.restored += 1
        return step

    def _write(self, step: int, attempt: int) -> Local:
        folder = self._work / f"{step}-{attempt}"
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"%08d" % step + bytes(self._plan.bytes))
        (folder / "optimizer.bin").write_bytes(bytes(self._plan.bytes // 2))
        (folder / "trainer_state.json").write_text("{}")
        return Local(folder, step)

    def _on_committed(self, committed: Committed) -> None:
        key = committed.checkpoint.key
        self._committed[key] = committed.checkpoint.step
        self._dropped.update(dropped.key for dropped in committed.dropped)
        self._durable = max(self._durable, committed.checkpoint.step)
        with self._seen.lock:
            self._seen.committed += 1

    def _beat(self, clock: _Clock) -> Progress:
        with self._seen.lock:
            self._seen.beats.append(time.time())
        return Progress(phase="training", step=clock.step, max_steps=self._plan.saves * STEPS)

    def _verify(self) -> None:
        """No commit is lost: each is listed with all its files, or was retired for newer ones."""
        storage = open_storage(f"{self._plan.root}/{self._id}")
        found = read_record(storage)
        assert found is not None
        listed = {checkpoint.key for checkpoint in found[0].checkpoints}
        if lost := set(self._committed) - listed - self._dropped:
            self._wrong(f"lost: {sorted(lost)}")
        if found[0].status != "succeeded" or found[0].durable_step != self._plan.saves * STEPS:
            self._wrong(f"ended {found[0].status} at step {found[0].durable_step}")
        for key in listed:
            try:
                storage.stat(key + "manifest.json")
            except NotFound:
                self._wrong(f"{key} is listed and has no manifest")

    def _wrong(self, what: str) -> None:
        with self._seen.lock:
            self._seen.violations.append(f"{self._id}: {what}")


@dataclass
class _Clock:
    step: int


def _sleep(seconds: float, until: float | None) -> bool:
    """False where the attempt ends first."""
    left = seconds if until is None else min(seconds, until - time.monotonic())
    time.sleep(max(0.0, left))
    return left >= seconds
