"""Training rows whose prompt is nearly that of an evaluation row: they flatter the adapter.

Equal prompts are on one side by the split. Nearly equal ones are found by their sketches, then
compared word by word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from job.dataset.identity import BANDS, Identity
from job.dataset.review.tally import Counted
from job.dataset.rows.row import Row
from job.dataset.split import Indices
from job.dataset.store import Rows

NEARLY: Final = 0.85
"""Share of the words of two prompts that both have (Jaccard, words counted as often as they
stand)."""
MOST_COMPARED: Final = 2000
"""Training rows that are compared word by word; where there are more, the count is of these."""
_PARTNERS: Final = 4
"""Evaluation rows that one training row is compared with."""


def candidates(rows: Rows, train: Indices, evaluation: Indices) -> dict[int, list[int]]:
    """Training row → evaluation rows that it may resemble."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    bands = rows["bands"]
    for band in range(BANDS):
        by_value: defaultdict[int, list[int]] = defaultdict(list)
        for index in evaluation:
            by_value[int(bands[index, band])].append(int(index))
        column = bands[train, band]
        hits = np.flatnonzero(np.isin(column, np.fromiter(by_value, np.uint32, len(by_value))))
        for hit in hits[:MOST_COMPARED]:
            partners = found[int(train[hit])]
            partners += by_value[int(column[hit])][: _PARTNERS - len(partners)]
    return dict(sorted(found.items())[:MOST_COMPARED])


def involved(found: Mapping[int, Sequence[int]]) -> set[int]:
    """The rows of both sides that `leaked` asks for."""
    return {*found, *(partner for partners in found.values() for partner in partners)}


def leaked(found: Mapping[int, Sequence[int]], row: Callable[[int], Row]) -> Counted:
    """Those of the candidates that do resemble an evaluation row."""
    counted = Counted()
    for index, partners in found.items():
        mine = Counter(Identity.of(row(index)).asked.split())
        alike, partner = max((_likeness(mine, row(other)), other) for other in partners)
        if alike >= NEARLY:
            here = row(index)
            detail = f"{alike:.0%} of the words of {row(partner).where}, which is held out"
            counted.add(here.uri, here.line, detail)
    return counted


def _likeness(mine: Counter[str], other: Row) -> float:
    theirs = Counter(Identity.of(other).asked.split())
    union = (mine | theirs).total()
    return (mine & theirs).total() / union if union else 1.0
