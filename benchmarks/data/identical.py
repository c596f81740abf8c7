"""Whether the job's ids, which it joins from pieces, are those of the whole text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.data.plain import Plain
from job.dataset.store import Store


@dataclass(frozen=True)
class Compared:
    rows: int
    identical: int


def compare(path: Path, model: Path, store: Store, rows: int) -> Compared:
    """Encode so many rows of the file as a whole, evenly over its length."""
    if not rows:
        return Compared(0, 0)
    places = np.unique(np.linspace(0, len(store.rows) - 1, rows).astype(int))
    wanted = {int(store.rows["line"][place]): int(place) for place in places}
    numbers, lines = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number in wanted:
                numbers.append(number)
                lines.append(line)
    same = [
        store.sample(wanted[number]).input_ids.tolist() == ids
        for number, ids in zip(numbers, Plain(model).ids(lines), strict=True)
    ]
    return Compared(len(same), sum(same))
