"""Whether a run is alive: a step that hangs is a stall, loading a large model is not."""

from __future__ import annotations

from job.metrics.registry import Metrics


class Health:
    """Asked by `/healthz`. Only training has a pace, so only training can stall."""

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
        return True, f"ok: {phase}"
