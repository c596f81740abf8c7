"""Whether a run is alive: a step that hangs is a stall, loading a large model is not."""

from __future__ import annotations

from typing import Final

from job.metrics.registry import Metrics

_PATIENCE: Final = 4
"""Phases other than training may be silent so many times longer: a large model is loaded into
the GPU without a sign of life."""

_ENDED: Final = ("finished", "preempted", "failed")


class Health:
    """Asked by `/healthz`.

    In training a micro-batch is the sign of life, whatever else goes on; outside of it a generated
    batch, a byte that moves from or to storage or from a hub (the record's heartbeat aside), a
    request to storage that is tried again (which its patience bounds), rows of the data that are
    read or tokenized, what the making of an export writes or says, or a new phase. A run that has
    ended is well.
    """

    def __init__(self, metrics: Metrics, stall_seconds: float) -> None:
        self._state = metrics.state
        self._stall_seconds = stall_seconds

    def __call__(self) -> tuple[bool, str]:
        """Healthy or not, and one line that says why."""
        phase = self._state.phase
        idle = self._state.seconds_since_beat()
        if phase == "training" and idle > self._stall_seconds:
            return False, (
                f"stalled: no micro-batch for {idle:.0f} s after step {self._state.step} "
                f"(FORGE_STALL_SECONDS is {self._stall_seconds:g})"
            )
        if phase not in _ENDED and idle > _PATIENCE * self._stall_seconds:
            return False, (
                f"stalled: no sign of life for {idle:.0f} s in phase {phase} "
                f"({_PATIENCE} times FORGE_STALL_SECONDS, which is {self._stall_seconds:g})"
            )
        return True, f"ok: {phase}"
