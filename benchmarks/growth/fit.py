"""The exponent of a growth: 1 is linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

FLAT: Final = 0.1
"""What grows by less than this share of its smallest value over all sizes has exponent 0: its slope
would be noise."""


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log(value - fixed) over log(size), by least squares.

    `fixed` is what a line through the two smallest sizes leaves at size 0, if that is positive:
    connections, and memory that every size needs.
    """
    if max(values) < values[0] * (1 + FLAT):
        return 0.0
    slope = (values[1] - values[0]) / (sizes[1] - sizes[0])
    fixed = min(max(0.0, values[0] - slope * sizes[0]), 0.99 * min(values))
    xs = [math.log(size) for size in sizes]
    ys = [math.log(value - fixed) for value in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return round(above / sum((x - mean_x) ** 2 for x in xs), 3)
