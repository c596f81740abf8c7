"""The exponent of a growth: 1 is linear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

FLAT: Final = 0.1
"""What grows by less than this share of its smallest value over all sizes has exponent 0: its slope
would be noise."""

CANDIDATES: Final = 200
"""Fixed parts that are tried, from none to just less than the smallest value."""


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """`p` of `value = fixed + factor * size**p`, which is nearest to all values by their ratios.

    `fixed` is what every size needs: connections, a first call, memory of the interpreter. Each
    candidate for it leaves a line in the logarithms (least squares); the one whose curve is nearest
    is taken, so that one slow smallest size doesn't pass for a fixed part.
    """
    if max(values) < values[0] * (1 + FLAT):
        return 0.0
    fixed = [0.99 * min(values) * number / CANDIDATES for number in range(CANDIDATES)]
    return round(min(_fitted(sizes, values, part) for part in fixed)[1], 3)


def _fitted(sizes: Sequence[float], values: Sequence[float], fixed: float) -> tuple[float, float]:
    """How far the curve is from the values, and its exponent."""
    xs = [math.log(size) for size in sizes]
    ys = [math.log(value - fixed) for value in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope = above / sum((x - mean_x) ** 2 for x in xs)
    curve = [fixed + math.exp(mean_y + slope * (x - mean_x)) for x in xs]
    return sum(math.log(v / c) ** 2 for v, c in zip(values, curve, strict=True)), slope
