"""One process a GPU, as torchrun would start them; free of torch.

torchrun itself ends with 1 whatever its workers ended with, and kills them 30 s after a SIGTERM.
Here a signal goes to all workers, they have their whole grace period, and the code they agreed on
is the pod's.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Final

from job.errors import Preempted, SettingsError
from job.lifecycle import REPORT_SECONDS, SIGNALS, TRACKERS_SECONDS
from job.ranks.node import Node
from job.ranks.released import Release
from job.ranks.verdict import end_of_pod

if TYPE_CHECKING:
    from job.config import Settings

_POLL_SECONDS: Final = 0.1
_FOLLOW_SECONDS: Final = 10.0
"""Ranks of a group end by themselves; one that hasn't met the others yet is told."""

_TOLD: Final = (Preempted.exit_code, -signal.SIGTERM, -signal.SIGKILL)
"""How a worker ends that was told to; one with another code had ended before, and lingered."""


def launch(node: Node, command: Sequence[str] = (sys.executable, "-m", "job")) -> tuple[int, str]:
    """Run the workers to their end: the exit code, and what to say where no worker could."""
    return _Workers(node, command).wait()


class _Workers:
    def __init__(self, node: Node, command: Sequence[str]) -> None:
        self._owns_run = node.number == 0
        self._release = Release()
        self._signalled = False
        self._codes: dict[int, int] = {}
        self._ending_since: float | None = None
        self._told: set[int] = set()
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        self._processes = [self._started(node, rank, command) for rank in range(node.workers)]
        if self._signalled:
            self._terminate()

    def _started(self, node: Node, rank: int, command: Sequence[str]) -> subprocess.Popen[bytes]:
        env, fds = {**os.environ, **node.environment(rank)}, tuple[int, ...]()
        if self._is_owner(rank):
            env |= self._release.environment
            fds = (self._release.fd,)
        return subprocess.Popen(command, env=env, pass_fds=fds, preexec_fn=_die_with_parent)

    def _is_owner(self, rank: int) -> bool:
        return self._owns_run and rank == 0

    def wait(self) -> tuple[int, str]:
        while len(self._codes) < len(self._processes):
            time.sleep(_POLL_SECONDS)
            self._collect()
            if self._ending_since and not self._signalled:
                self._end_overdue(time.monotonic() - self._ending_since)
        judged = {r: c for r, c in self._codes.items() if r not in self._told or c not in _TOLD}
        if self._release.heard():
            judged = {0: self._codes[0]}  # the run's end is its own: what came of others is nothing
        return end_of_pod(judged, signalled=self._signalled, owns_run=self._owns_run)

    def _collect(self) -> None:
        for rank, process in enumerate(self._processes):
            if rank not in self._codes and (code := process.poll()) is not None:
                self._codes[rank] = code
                if (code or self._is_owner(rank)) and not self._ending_since:
                    self._ending_since = time.monotonic()

    def _end_overdue(self, seconds: float) -> None:
        """Who is still there so long after the first failure, or rank 0's end, is told to end, and
        killed where that does not help: a frozen one would hold the node's GPUs for ever."""
        for rank, process in enumerate(self._processes):
            if rank in self._codes or (allowed := self._allowed(rank)) > seconds:
                continue
            if rank not in self._told:
                self._told.add(rank)
                process.send_signal(signal.SIGTERM)
            elif seconds > allowed + self._stop_seconds:
                process.kill()

    def _allowed(self, rank: int) -> float:
        if not self._is_owner(rank):
            return _FOLLOW_SECONDS
        return math.inf if self._release.heard() else self._owner_seconds

    @cached_property
    def _owner_seconds(self) -> float:
        return owner_seconds()

    @cached_property
    def _stop_seconds(self) -> float:
        return stop_seconds()

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
    settings = _settings()
    if settings is None:
        return _FOLLOW_SECONDS  # the workers refuse them as well, and there is no run to report
    trackers = TRACKERS_SECONDS if settings.report_to else 0.0
    return _FOLLOW_SECONDS + REPORT_SECONDS + trackers + settings.metrics_linger_seconds


def stop_seconds() -> float:
    """So long a worker may take that was told to end: its grace period, which it keeps to itself,
    and some more."""
    settings = _settings()
    return _FOLLOW_SECONDS + (settings.grace_seconds if settings else 0.0)


def _settings() -> Settings | None:
    from job.config import load_settings  # only here: the launcher itself needs none of them

    try:
        return load_settings()
    except SettingsError:
        return None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
