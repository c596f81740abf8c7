"""What is worth knowing about the split: nothing is held out, or rows are tied by their `id`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LARGE: Final = 0.1
"""Share of the rows from which a group decides by itself how much is held out."""
_FEW: Final = 10
"""Smaller groups are no matter, however few rows there are."""


def lopsided(rows: int, evaluated: int, eval_fraction: float, largest_group: int) -> Iterator[str]:
    """A line for each thing. `largest_group`: rows that only their ids keep on one side."""
    large = largest_group >= _FEW and largest_group > LARGE * rows
    if eval_fraction > 0 and rows and not evaluated:
        hint = "add rows, or raise it, or set it to 0 for no evaluation"
        if large:
            hint = f"{tied(largest_group)}: {OWN_ID}"
        yield f"no row is held out, though FORGE_EVAL_FRACTION is {eval_fraction:g}; {hint}"
    elif eval_fraction > 0 and large:
        share = f"{largest_group / rows:.0%} of all"
        yield f"{tied(largest_group)} ({share}); if they don't belong together, {OWN_ID}"


def tied(rows: int) -> str:
    return f"{rows} rows are tied together by their 'id', so they stay on one side"


OWN_ID: Final = (
    "give each conversation an id of its own, or none (row numbers of several files tie)"
)
