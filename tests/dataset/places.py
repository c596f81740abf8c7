"""Where a row falls in the split, by itself."""

from __future__ import annotations

import numpy as np

from job.dataset import Row
from job.dataset.identity import prompt_hash
from job.dataset.split import places


def place(row: Row) -> float:
    return float(places(np.array([prompt_hash(row)], dtype=np.uint64))[0])
