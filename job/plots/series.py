"""The numbers of a curve: taken from the trainer's log, smoothed, thinned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

_LEAST_WEIGHT: Final = 0.6
_MOST_WEIGHT: Final = 0.99
_WINDOW: Final = 0.02
"""Share of the run that is averaged over, between these two."""
FEWEST_SMOOTHED: Final = 20
"""An average over fewer values would only lag behind them."""
_LARGEST: Final = 1e12
"""What is larger, on either side of zero, is not drawn: no axis could show it beside the rest."""


def points(history: Sequence[Mapping[str, Any]], name: str) -> tuple[Numbers, Numbers]:
    """Steps and the values of `name` there, in order; entries that are not finite are left out.

    A step that was trained again after a resume counts as it was trained last.
    """
    found = {
        float(entry.get("step") or 0): float(entry[name])
        for entry in history
        if isinstance(entry.get(name), int | float)
    }
    steps = np.array(sorted(found), dtype=np.float64)
    values = np.array([found[step] for step in steps.tolist()], dtype=np.float64)
    keep = np.abs(values) < _LARGEST  # False for NaN
    return steps[keep], values[keep]


def not_finite(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """Steps at which `name` was logged as NaN or infinite, with what it was."""
    return [
        (int(entry.get("step") or 0), float(entry[name]))
        for entry in history
        if isinstance(entry.get(name), float) and not math.isfinite(entry[name])
    ]


def scientific(value: float) -> str:
    """As people write small numbers: 2e-4, 1.5e-4, 0."""
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}" if value else "0"


def smoothing_weight(count: int) -> float:
    """Of the past in the moving average of so many values: about 2% of the run is averaged."""
    return min(_MOST_WEIGHT, max(_LEAST_WEIGHT, 1 - 1 / max(1.0, count * _WINDOW)))


def smoothed(values: Numbers) -> Numbers:
    """Exponential moving average without a bias to its start (Adam's correction, as TensorBoard
    smooths): `s_n = Σ w^(n-i) x_i / Σ w^(n-i)`."""
    weight = smoothing_weight(len(values))
    sums, total, norm = np.empty_like(values), 0.0, 0.0
    for place, value in enumerate(values.tolist()):
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        sums[place] = total / norm
    return sums


def thinned(steps: Numbers, values: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """At most two points for each of `columns` stretches of the steps: its lowest and highest."""
    if len(steps) <= 2 * columns:
        return steps, values
    span = steps[-1] - steps[0]
    column = np.minimum((steps - steps[0]) / span * columns, columns - 1).astype(np.int64)
    by_value = np.lexsort((values, column))
    edges = np.flatnonzero(np.diff(column[by_value])) + 1
    lowest = by_value[np.concatenate(([0], edges))]
    highest = by_value[np.concatenate((edges - 1, [len(by_value) - 1]))]
    kept = np.unique(np.concatenate((lowest, highest)))
    return steps[kept], values[kept]
