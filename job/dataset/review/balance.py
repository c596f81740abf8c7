"""What is worth knowing about the split: nothing is held out, or rows can't be parted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LARGE: Final = 0.1
"""Share of the rows from which a group decides by itself how much is held out."""
_FEW: Final = 10
"""Smaller groups are no matter, however few rows there are."""


def lopsided(
    rows: int, evaluated: int, eval_fraction: float, largest_group: int, same_prompt: int
) -> Iterator[str]:
    """A line for each thing. `largest_group`: rows that only their ids keep on one side;
    `same_prompt`: those of the most frequent prompt."""
    if not (rows and eval_fraction > 0):
        return
    groups = list(_large(rows, largest_group, same_prompt))
    if evaluated:
        for size, tied, hint in groups:
            yield f"{tied} ({size / rows:.0%} of all); if they don't belong together, {hint}"
    else:
        why = reason(rows, largest_group, same_prompt)
        hint = why or "add rows, or raise it, or set it to 0 for no evaluation"
        yield f"no row is held out, though FORGE_EVAL_FRACTION is {eval_fraction:g}; {hint}"


def reason(
    rows: int, largest_group: int, same_prompt: int, share: float = LARGE, few: int = _FEW
) -> str:
    """Why so many stay on one side, and what to do; empty if no group is of so many rows, nor of
    `few`."""
    groups = _large(rows, largest_group, same_prompt, share, few)
    return "; ".join(f"{tied}: {hint}" for _, tied, hint in groups)


def _large(
    rows: int, largest_group: int, same_prompt: int, share: float = LARGE, few: int = _FEW
) -> Iterator[tuple[int, str, str]]:
    """Rows of each large group, what keeps it together, and what to do."""
    kinds = (
        (largest_group, "are tied together by their 'id'", _OWN_ID),
        (same_prompt, "have the same prompt", _OWN_PROMPT),
    )
    for size, why, hint in kinds:
        if size >= few and size > share * rows:
            yield size, f"{size} rows {why}, so they stay on one side", hint


_OWN_ID: Final = (
    "give each conversation an id of its own, or none (row numbers of several files tie)"
)
_OWN_PROMPT: Final = "let the system turn or the first user turn tell them apart"
