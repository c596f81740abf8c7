"""Right answers by expected tool and by scenario; bounded, since names come from the data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeAlias

from job.dataset import Row
from job.dataset.rows.secrets import mask_secrets
from job.evaluation.calls import Score, expected_calls

Table: TypeAlias = dict[str, dict[str, int | None]]
"""Name → turns (`of`), and how many of them `base` and `adapter` got right; the base's is None
where only one model was judged."""

OTHER: Final = "(other)"
"""The row that sums up what is beyond the bound."""
_KEPT: Final = 50
_LONGEST_NAME: Final = 80


def by_tool(
    expected: Sequence[dict[str, Any]], base: Sequence[Score] | None, adapter: Sequence[Score]
) -> Table:
    """By the tools that a turn expects; one of several tools counts for each of them."""
    names = [{call.name for call in expected_calls(turn)} for turn in expected]
    return _table(names, base, adapter)


def by_scenario(
    rows: Sequence[Row], base: Sequence[Score] | None, adapter: Sequence[Score]
) -> Table:
    """By the key `scenario` of the turns' rows; rows without one are left out."""
    named = (row.meta.get("scenario") for row in rows)
    names = [{str(name)} if isinstance(name, str | int | float) else set() for name in named]
    return _table(names, base, adapter)


def label(name: str) -> str:
    """A name from the data as it can be shown anywhere: printable, of one line, not long, without
    secrets."""
    name = mask_secrets(name)
    cut = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut).strip()
    return shown or "(no name)"


def _table(
    names: Sequence[Collection[str]], base: Sequence[Score] | None, adapter: Sequence[Score]
) -> Table:
    """The most frequent names first; those beyond the bound become one last row."""
    counts: dict[str, list[int]] = {}
    for turn, of_turn in enumerate(names):
        before = bool(base and base[turn].right)
        for name in {label(name) for name in of_turn}:
            _add(counts.setdefault(name, [0, 0, 0]), [1, before, adapter[turn].right])
    ranked = sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    table = dict(ranked[:_KEPT])
    for _, count in ranked[_KEPT:]:
        _add(table.setdefault(OTHER, [0, 0, 0]), count)
    return {
        name: {"of": of, "base": None if base is None else before, "adapter": after}
        for name, (of, before, after) in table.items()
    }


def _add(total: list[int], more: Sequence[int]) -> None:
    total[:] = [a + b for a, b in zip(total, more, strict=True)]
