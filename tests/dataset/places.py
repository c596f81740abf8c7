"""Where a row falls in the split, by itself and without an id."""

from __future__ import annotations

import numpy as np

from job.dataset import Row
from job.dataset.identity import Identity
from job.dataset.split import places


def place(row: Row) -> float:
    return float(places(np.array([Identity.of(row).prompt], dtype=np.uint64))[0])
