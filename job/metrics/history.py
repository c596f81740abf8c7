"""The training loss over a whole run in a few points, for a picture of it in a line of text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

POINTS: Final = 60


class LossHistory:
    """At most `POINTS` points, an even number of steps apart.

    A point is the loss of its own step, not a mean. Every `stride` steps one is kept; when there
    are too many, the stride doubles and every other goes.
    """

    def __init__(self) -> None:
        self._stride = 1
        self._points: dict[int, float] = {}

    def add(self, step: int, loss: float) -> None:
        """A step that is trained again after a resume replaces what it had before."""
        if step % self._stride or not math.isfinite(loss):
            return
        self._points[step] = loss
        while len(self._points) > POINTS:
            self._stride *= 2
            self._points = {s: x for s, x in self._points.items() if s % self._stride == 0}

    def restore(self, points: Iterable[tuple[int, float]], step: int) -> None:
        """What earlier attempts recorded, up to the step that the run goes on from."""
        for at, loss in points:
            if at <= step:
                self.add(at, loss)

    def points(self) -> list[tuple[int, float]]:
        return [(step, round(loss, 4)) for step, loss in sorted(self._points.items())]
