"""When nodes are taken away: by chance, in storms, or as somebody has recorded it."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.goodput.simulation import Interruption

CALM_SHARE = 0.1
"""Of the mean rate, while it is calm."""
STORM_HOURS = 1.0
CALM_HOURS = 9.0


def poisson(per_hour: float, hard_share: float, seed: int) -> Iterator[Interruption]:
    chosen = random.Random(seed)  # noqa: S311  a simulation
    while True:
        after = chosen.expovariate(per_hour / 3600)
        yield Interruption(after, chosen.random() < hard_share)


def bursty(per_hour: float, hard_share: float, seed: int) -> Iterator[Interruption]:
    """A Markov-modulated Poisson process of the same mean rate: nine hours of calm at a tenth of
    it, then an hour of storm, each of random length (exponential)."""
    chosen = random.Random(seed)  # noqa: S311  a simulation
    share = STORM_HOURS / (STORM_HOURS + CALM_HOURS)
    storm_rate = per_hour * (1 - CALM_SHARE * (1 - share)) / share
    after, stormy = 0.0, chosen.random() < share
    left = chosen.expovariate(1 / ((STORM_HOURS if stormy else CALM_HOURS) * 3600))
    while True:
        gap = chosen.expovariate((storm_rate if stormy else per_hour * CALM_SHARE) / 3600)
        if gap < left:
            left -= gap
            yield Interruption(after + gap, chosen.random() < hard_share)
            after = 0.0
            continue
        after += left  # the weather changes first; an exponential has no memory
        stormy = not stormy
        left = chosen.expovariate(1 / ((STORM_HOURS if stormy else CALM_HOURS) * 3600))


def recorded(path: Path, hard_share: float, seed: int) -> Iterator[Interruption]:
    """A CSV whose first column is seconds since the trace began; over again at its end."""
    with path.open(newline="") as file:
        times = sorted(float(row[0]) for row in csv.reader(file) if row and row[0][:1].isdigit())
    if not times or times[-1] <= 0:
        raise SystemExit(f"{path}: holds no times, in seconds, in its first column")
    chosen = random.Random(seed)  # noqa: S311  a simulation
    gaps = [times[0], *(b - a for a, b in itertools.pairwise(times))]
    while True:
        for gap in gaps:
            yield Interruption(gap, chosen.random() < hard_share)
