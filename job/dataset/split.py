"""The held-out side, chosen by a hash of the `id`, or of the prompt where a group has no id.

Rows with the same prompt or the same `id` are one group and stay together. It is named by the
lowest of its ids' hashes, so another order of the data moves no row, nor does growth: new rows of
known ids with prompts of any kind, rows that are new altogether. What can move a group is a known
prompt under an id that is new or another group's: no name holds against both, and conversations
that go on under their id are what grows. Without ids nothing that is added moves a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from job.dataset.identity import Hashes, Identity, mixed
from job.dataset.rows.row import Row

_BITS: Final = 53
"""What a float holds exactly, so that a place is below 1."""

_NO_ID: Final = np.iinfo(np.uint64).max

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Which rows go where, as indices into the table of rows."""

    train: Indices
    """In the order of the data."""
    evaluation: Indices
    """In the order of their place; so the order of the data doesn't matter."""
    unused: int
    """Held-out rows beyond the limit."""
    largest_group: int
    """Rows of the largest group that more than one prompt belongs to; 0 if there is none."""
    same_prompt: int
    """Rows of the most frequent prompt."""


def split(
    prompts: Hashes, ids: Hashes, contents: Hashes, eval_fraction: float, eval_max_rows: int
) -> Split:
    """Hold out about `eval_fraction` of the groups; of their rows the `eval_max_rows` with the
    lowest places are evaluated, copies of others only where the limit leaves room for them.

    `prompts`, `ids` (0: none) and `contents` are hashes, one a row.
    """
    groups = _groups(prompts, ids)
    at = places(_named(groups, ids))
    held_out = np.flatnonzero(at < eval_fraction)
    in_order = held_out[np.lexsort((contents[held_out], at[held_out]))]
    evaluation = _within(eval_max_rows, in_order, contents)
    return Split(
        train=np.flatnonzero(at >= eval_fraction),
        evaluation=evaluation,
        unused=len(held_out) - len(evaluation),
        largest_group=_largest(groups, prompts),
        same_prompt=int(np.unique(prompts, return_counts=True)[1].max(initial=0)),
    )


def _within(limit: int, in_order: Indices, contents: Hashes) -> Indices:
    """So many of the rows, in their order: a copy is judged no second time, and would use up the
    limit in place of a row that is."""
    held = contents[in_order]
    copies = np.concatenate([[False], held[1:] == held[:-1]])[: len(held)]
    return in_order[np.sort(np.argsort(copies, kind="stable")[:limit])]


def places(groups: Hashes) -> npt.NDArray[np.float64]:
    """Where each group falls in [0, 1)."""
    # Mixed again, for a group is named after its lowest hash: large ones would all be held out.
    return (mixed(groups) >> np.uint64(64 - _BITS)) / 2.0**_BITS


def groups_of(rows: Sequence[Row]) -> list[int]:
    """The group of each row: those that `split` would keep together have the same."""
    once = {id(row): row for row in rows}
    known = [Identity.of(row) for row in once.values()]
    prompts = np.array([one.prompt for one in known], dtype=np.uint64)
    ids = np.array([one.id for one in known], dtype=np.uint64)
    groups = dict(zip(once, _groups(prompts, ids).tolist(), strict=True))
    return [groups[id(row)] for row in rows]


def _groups(prompts: Hashes, ids: Hashes) -> Hashes:
    """The lowest prompt hash of each row's group."""
    groups = prompts.copy()
    tied = _repeated(ids)
    if not len(tied):
        return groups
    by_id, by_prompt = _runs(ids, tied), _runs(prompts, np.arange(len(prompts)))
    while True:
        before = groups.copy()
        for order, firsts in (by_id, by_prompt):
            least = np.minimum.reduceat(groups[order], firsts)
            groups[order] = np.repeat(least, np.diff(np.append(firsts, len(order))))
        if np.array_equal(before, groups):
            return groups


def _named(groups: Hashes, ids: Hashes) -> Hashes:
    """For each row the name of its group: the lowest hash of its ids, else of its prompt."""
    known, group_of = np.unique(groups, return_inverse=True)
    least = np.full(len(known), _NO_ID)
    given = np.flatnonzero(ids)
    np.minimum.at(least, group_of[given], ids[given])
    named: Hashes = np.where(least == _NO_ID, known, least)[group_of]
    return named


def _repeated(ids: Hashes) -> Indices:
    """Rows whose id another row has, too."""
    given = np.flatnonzero(ids)
    _, inverse, counts = np.unique(ids[given], return_inverse=True, return_counts=True)
    return given[counts[inverse] > 1]


def _runs(keys: Hashes, rows: Indices) -> tuple[Indices, Indices]:
    """`rows` ordered by key, and where in that order each key begins."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    ordered = keys[order]
    return order, np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _largest(groups: Hashes, prompts: Hashes) -> int:
    tied = groups != prompts
    if not tied.any():
        return 0
    names, counts = np.unique(groups, return_counts=True)
    return int(counts[np.isin(names, groups[tied])].max())
