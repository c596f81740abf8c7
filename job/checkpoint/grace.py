"""Does what a preemption needs fit into the grace period? From the times that were measured.

From SIGTERM to a durable state it takes a micro-batch (training stops at its end), the local
write, the upload, and the swap of `run.json`. Each is taken at the slowest of the last few, but
the upload at the fastest: while training goes on it is slowed down by it, after a stop it isn't.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from job.ledger.record import Pace

_log = logging.getLogger(__name__)

LEAVING_SECONDS = 1.0
"""From the durable state to the end of the process, with the swap that says why it ended."""

_REMEMBERED = 16
_CHANGE = 1.25
"""A warning is repeated once it understates what is needed by so much."""


class Grace:
    """What the grace period has to hold. Thread-safe."""

    def __init__(
        self,
        seconds: float,
        learned: Pace | None = None,
        on_needed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`learned` is what an earlier attempt has measured."""
        self._seconds = seconds
        self._on_needed = on_needed
        self._lock = threading.Lock()
        known = learned or Pace()
        self._times = {
            name: deque([value] if (value := getattr(known, name)) else [], _REMEMBERED)
            for name in Pace.model_fields
        }
        self._warned_of = 0.0
        self._compare()

    def micro_batch(self, seconds: float) -> None:
        """One took so long. Says nothing: it is called after each step."""
        self._learn("micro_batch_seconds", seconds)

    def written(self, seconds: float) -> None:
        self._learn("write_seconds", seconds)

    def committed(self, upload_seconds: float, commit_seconds: float) -> None:
        """A checkpoint became durable; a grace period that is too short is named now."""
        self._learn("upload_seconds", upload_seconds)
        self._learn("commit_seconds", commit_seconds)
        self._compare()

    @property
    def pace(self) -> Pace:
        """For the record, so that the next attempt knows at its start."""
        with self._lock:
            slowest = {name: max(times, default=0.0) for name, times in self._times.items()}
            fastest = min(self._times["upload_seconds"], default=0.0)
            return Pace(**(slowest | {"upload_seconds": fastest}))

    @property
    def needed_seconds(self) -> float | None:
        """From SIGTERM to the end of the process; None until an upload was measured."""
        pace = self.pace
        if not pace.upload_seconds:
            return None
        return pace.micro_batch_seconds + pace.write_seconds + self.durable_seconds

    @property
    def durable_seconds(self) -> float:
        """From a written checkpoint to the end of the process; 0 until one was measured."""
        pace = self.pace
        if not pace.upload_seconds:
            return 0.0
        return pace.upload_seconds + pace.commit_seconds + LEAVING_SECONDS

    def _learn(self, name: str, seconds: float) -> None:
        with self._lock:
            self._times[name].append(seconds)

    def _compare(self) -> None:
        needed = self.needed_seconds
        if needed is None:
            return
        self._on_needed(needed)
        if needed <= self._seconds:
            if self._warned_of:
                _log.info("the grace period of %.0f s is long enough now", self._seconds)
            self._warned_of = 0.0
        elif needed > self._warned_of * _CHANGE:
            self._warned_of = needed
            _log.warning("%s", self._complaint(needed))

    def _complaint(self, needed: float) -> str:
        pace = self.pace
        parts = (
            f"micro-batch {pace.micro_batch_seconds:.1f}, write {pace.write_seconds:.1f}, upload "
            f"{pace.upload_seconds:.1f}, commit {pace.commit_seconds:.1f}, leaving "
            f"{LEAVING_SECONDS:.1f}"
        )
        return (
            f"FORGE_GRACE_SECONDS: {self._seconds:.0f} s are too short to save at a preemption, "
            f"which takes {needed:.1f} s ({parts}): what was trained since the last checkpoint "
            "would be trained again. Raise terminationGracePeriodSeconds to "
            f"{needed * _CHANGE:.0f}, and this setting with it"
        )
