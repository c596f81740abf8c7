"""One process a GPU, from the variables that torchrun would read; free of torch.

torchrun itself ends with 1 whatever its workers ended with, and kills them 30 s after a SIGTERM.
Here a signal goes to all workers, they have their whole grace period, and the code they agreed on
is the pod's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Final

from job.errors import EXIT_CODES, JobError, Preempted, Problem, SettingsError
from job.lifecycle import REPORT_SECONDS, SIGNALS, TRACKERS_SECONDS

_PORT: Final = 29500
_POLL_SECONDS: Final = 0.1
_FOLLOW_SECONDS: Final = 10.0
"""Ranks of a group end by themselves; one that hasn't met the others yet is told."""

_TOLD: Final = (Preempted.exit_code, -signal.SIGTERM)
"""How a worker ends that was told to; one with another code had ended before, and lingered."""

_BOOTING: Final = tuple(-number for number in SIGNALS)
"""How a worker ends whose signal comes before it handles any."""

_VERDICTS: Final = tuple(code for code, (_, action) in EXIT_CODES.items() if action == "FailJob")
_ORDER: Final = (*_VERDICTS, 76, 75, 69)
"""The first that any worker ended with is the pod's: what can't be mended, then what is nobody's
fault, whose neighbours may end with anything."""


@dataclass(frozen=True)
class Node:
    """What this pod is to start."""

    nodes: int
    workers: int
    number: int
    host: str
    port: int

    def environment(self, local_rank: int) -> dict[str, str]:
        """torchrun's variables for one worker."""
        return {
            "WORLD_SIZE": str(self.nodes * self.workers),
            "RANK": str(self.number * self.workers + local_rank),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.workers),
            "GROUP_RANK": str(self.number),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
            # Workers with a thread for every core each would wait for one another.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(self._threads()),
        }

    def _threads(self) -> int:
        return max(1, len(os.sched_getaffinity(0)) // self.workers)


def wanted(environ: Mapping[str, str]) -> Node | None:
    """What `PET_*` ask for; None for a single process, and for a worker of torchrun.

    Raises `SettingsError`.
    """
    if "LOCAL_RANK" in environ:
        return None
    nodes, workers = _count(environ, "PET_NNODES"), _workers(environ)
    if nodes * workers == 1:
        return None
    number = _number(environ, "PET_NODE_RANK", 0)
    host = environ.get("PET_MASTER_ADDR") or ("127.0.0.1" if nodes == 1 else "")
    if not host:
        hint = "the name under which the other nodes find the first one"
        raise SettingsError(Problem("PET_MASTER_ADDR", f"is not set, with {nodes} nodes", hint))
    if not 0 <= number < nodes:
        raise SettingsError(Problem("PET_NODE_RANK", f"is {number}, with {nodes} nodes"))
    port = _PORT if nodes > 1 else free_port()
    return Node(nodes, workers, number, host, _number(environ, "PET_MASTER_PORT", port))


def free_port() -> int:
    """Nobody else has to know it: two runs on one machine, or its network, are not in each other's
    way. (One that is taken before rank 0 listens ends as any port that is taken.)"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local_processes(environ: Mapping[str, str]) -> int:
    """How many of the run share this node: as torchrun says, or as we would start.

    Raises `SettingsError`.
    """
    if environ.get("LOCAL_WORLD_SIZE"):
        return _count(environ, "LOCAL_WORLD_SIZE")
    return _workers(environ)


def launch(node: Node, command: Sequence[str] = (sys.executable, "-m", "job")) -> tuple[int, str]:
    """Run the workers to their end: the exit code, and what to say where no worker could."""
    return _Workers(node, command).wait()


class _Workers:
    def __init__(self, node: Node, command: Sequence[str]) -> None:
        self._owns_run = node.number == 0
        self._signalled = False
        self._codes: dict[int, int] = {}
        self._failed_at: float | None = None
        self._told: set[int] = set()
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._processes = [
            subprocess.Popen(
                command,
                env={**os.environ, **node.environment(rank)},
                preexec_fn=_die_with_parent,
            )
            for rank in range(node.workers)
        ]
        if self._signalled:
            self._terminate()

    def wait(self) -> tuple[int, str]:
        while len(self._codes) < len(self._processes):
            time.sleep(_POLL_SECONDS)
            self._collect()
            if self._failed_at and not self._signalled:
                self._tell_overdue(time.monotonic() - self._failed_at)
        judged = {r: c for r, c in self._codes.items() if r not in self._told or c not in _TOLD}
        return _end(judged, self._signalled)

    def _collect(self) -> None:
        for rank, process in enumerate(self._processes):
            if rank not in self._codes and (code := process.poll()) is not None:
                self._codes[rank] = code
                if code and not self._failed_at:
                    self._failed_at = time.monotonic()

    def _tell_overdue(self, seconds: float) -> None:
        """Who is still there so long after the first failure is told to end, once."""
        for rank, process in enumerate(self._processes):
            allowed = self._owner_seconds if self._owns_run and rank == 0 else _FOLLOW_SECONDS
            if rank not in self._codes and rank not in self._told and seconds > allowed:
                self._told.add(rank)
                process.send_signal(signal.SIGTERM)

    @cached_property
    def _owner_seconds(self) -> float:
        return owner_seconds()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True
        self._terminate()

    def _terminate(self) -> None:
        for process in getattr(self, "_processes", []):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def owner_seconds() -> float:
    """So long rank 0 may stay after another one's failure: it records that, reports it, tells the
    trackers, and waits for a last scrape. A signal would cut all of that off."""
    from job.config import load_settings  # only here: the launcher itself needs none of them

    try:
        settings = load_settings()
    except SettingsError:
        return _FOLLOW_SECONDS  # the workers refuse them as well, and there is no run to report
    trackers = TRACKERS_SECONDS if settings.report_to else 0.0
    return _FOLLOW_SECONDS + REPORT_SECONDS + trackers + settings.metrics_linger_seconds


def _end(codes: Mapping[int, int], signalled: bool) -> tuple[int, str]:
    """The pod's code and message, of workers that ended for a reason of their own. One that a
    signal caught while it started has nothing to save: it was preempted like the others."""
    caught = {rank for rank, code in codes.items() if signalled and code in _BOOTING}
    codes = {**codes, **dict.fromkeys(caught, Preempted.exit_code)}
    verdict = _verdict(list(codes.values()))
    if 0 in caught and verdict == Preempted.exit_code:
        return verdict, f"{Preempted.title}: the signal came while worker 0 started"
    return verdict, _unsaid(codes, verdict)


def _verdict(codes: Sequence[int]) -> int:
    for code in _ORDER:
        if code in codes:
            return code
    return JobError.exit_code if any(codes) else 0


def _unsaid(codes: Mapping[int, int], verdict: int) -> str:
    """The pod's message is worker 0's, unless that was killed, or ended for no reason of its own;
    `codes` leaves out who has ended because we told it to."""
    if codes.get(0) == verdict:
        return ""
    rank = 0 if codes.get(0, 0) < 0 else _decisive(codes, verdict)
    if codes[rank] < 0:
        return f"worker {rank} was killed by {signal.Signals(-codes[rank]).name}"
    return f"worker {rank} ended with {codes[rank]}: its log says why"


def _decisive(codes: Mapping[int, int], verdict: int) -> int:
    failed = [rank for rank, code in codes.items() if code]
    return next((rank for rank in failed if codes[rank] == verdict), failed[0])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    try:
        return int(value)
    except ValueError:
        hint = "elastic ranges have no place here: a run keeps its number of processes"
        raise SettingsError(Problem(name, f"is {value!r}, not a number", hint)) from None


def _count(environ: Mapping[str, str], name: str) -> int:
    number = _number(environ, name, 1)
    if number < 1:
        raise SettingsError(Problem(name, f"is {number}", "set 1 or more, or leave it out"))
    return number


def _workers(environ: Mapping[str, str]) -> int:
    """`auto` and `gpu`, Kubeflow's words, mean a worker for each card."""
    if environ.get("PET_NPROC_PER_NODE") not in ("auto", "gpu", "cpu"):
        return _count(environ, "PET_NPROC_PER_NODE")
    if environ["PET_NPROC_PER_NODE"] == "cpu":
        return 1
    counting = "import torch; print(torch.cuda.device_count())"  # in a process of its own
    found = subprocess.run([sys.executable, "-c", counting], capture_output=True, check=False)
    return max(1, int(found.stdout.strip() or 0))
