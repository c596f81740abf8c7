"""Hours that pass while real work is done in a moment, and what the liveness probe is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from job.metrics import BuildInfo, Health, Metrics
from job.metrics.state import RunState


class Hours:
    """Metrics with a clock that only `lengthened` work moves."""

    def __init__(self) -> None:
        self._now = 0.0
        self.metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock=lambda: self._now))
        self._health = Health(self.metrics, 900)
        self.well: list[bool] = []
        """What was answered each time that some of them had passed."""

    def lengthened(self, work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        """`work` that takes so long; each item of it, where it is an iterator."""

        def longer(*args: Any, **kwargs: Any) -> Any:
            found = work(*args, **kwargs)
            if hasattr(found, "__next__"):
                return (self._after(seconds, item) for item in found)
            return self._after(seconds, found)

        return longer

    def _after(self, seconds: float, done: Any) -> Any:
        self._now += seconds
        self.well.append(self._health()[0])
        return done
