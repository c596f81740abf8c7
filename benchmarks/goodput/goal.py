"""What the simulated weeks are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

AT_RATE: Final = 1.0
"""Interruptions an hour."""
GOAL: Final = 0.99
"""Goodput of ours at that rate, at least."""


def judged(rows: Iterable[Mapping[str, Any]], setting: str) -> Mapping[str, Any]:
    """The row of `setting` that counts: ours, with notice each time."""
    return next(
        row
        for row in rows
        if (row["setting"], row["policy"], row["per_hour"]) == (setting, "ours", AT_RATE)
        and not row["hard_share"]
    )
