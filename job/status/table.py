"""Which runs are shown, in which order, and as what text."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, get_args

from job.errors import Problem, SettingsError
from job.ledger import Status
from job.status.records import NOT_STARTED, UNREADABLE, Row
from job.terminal import printable

STATUSES: Final = (*get_args(Status), UNREADABLE, NOT_STARTED)
_ORDER: Final = (
    *("running", UNREADABLE, "failed", "gate_failed", NOT_STARTED, "preempted", "succeeded"),
)
_REASON_WIDTH: Final = 60


def _most(name: str) -> Callable[[Row], tuple[Any, ...]]:
    """Highest first; runs without a value come last."""
    return lambda row: (getattr(row, name) is None, -(getattr(row, name) or 0), row.run_id)


def _least(name: str) -> Callable[[Row], tuple[Any, ...]]:
    return lambda row: (getattr(row, name) is None, getattr(row, name) or 0, row.run_id)


_SORTS: Final[dict[str, Callable[[Row], tuple[Any, ...]]]] = {
    "status": lambda row: (_ORDER.index(row.status), row.run_id),
    "run_id": lambda row: (row.run_id,),
    "step": _most("step"),
    "loss": _least("loss"),
    "eval_loss": _least("eval_loss"),
    "exact": _most("exact"),
    "attempts": _most("attempts"),
    "gpu_hours": _most("gpu_hours"),
    "age": _least("age_seconds"),
}


@dataclass(frozen=True)
class Selection:
    """What the user asked for."""

    statuses: tuple[str, ...] = STATUSES
    sort: str = "status"
    columns: tuple[str, ...] = ()
    """Settings, as the record names them."""

    @classmethod
    def of(cls, statuses: str, sort: str, columns: str) -> Self:
        """From comma-separated names. Raises `SettingsError` for those that don't exist."""
        wanted = _names(statuses) or STATUSES
        problems = [_unknown("--status", name, STATUSES) for name in wanted if name not in STATUSES]
        if sort not in _SORTS:
            problems.append(_unknown("--sort", sort, tuple(_SORTS)))
        if problems:
            raise SettingsError(problems)
        return cls(wanted, sort, _names(columns))

    def chosen(self, rows: Iterable[Row]) -> list[Row]:
        """Sorted. Raises `SettingsError` for a column that is a setting of no run."""
        rows = list(rows)
        known = {name for row in rows for name in row.settings}
        missing = [name for name in self.columns if known and name not in known]
        if missing:
            raise SettingsError([_unknown("--columns", name, sorted(known)) for name in missing])
        return sorted((row for row in rows if row.status in self.statuses), key=_SORTS[self.sort])


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Aligned columns under a header; numbers to the right."""
    head = ["RUN", "STATUS", "STEP", "LOSS", "EXACT", *(name.upper() for name in columns)]
    head += ["ATTEMPTS", "GPU-H", "UPDATED", "NOTE"]
    lines = [head, *([*_cells(row, columns)] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    left = {0, 1, len(head) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def totals(rows: Sequence[Row]) -> str:
    """How many runs there are in each status, and what they took."""
    counts = Counter(row.status for row in rows)
    told = [f"{counts[status]} {status}" for status in _ORDER if counts[status]]
    hours = sum(row.gpu_hours or 0 for row in rows)
    silent = sum(row.silent for row in rows)
    text = f"{len(rows)} runs: {', '.join(told) or 'none'}; {hours:.1f} GPU hours"
    return text + (f"; {silent} running without a heartbeat" if silent else "")


def _cells(row: Row, columns: Sequence[str]) -> list[str]:
    steps = "–" if row.step is None else f"{row.step}/{row.max_steps or '?'}"
    told = ("promoted" if row.promoted else "", printable(row.reason))
    reason = "; ".join(filter(None, told))
    if len(reason) > _REASON_WIDTH:
        reason = reason[: _REASON_WIDTH - 1] + "…"
    cells = [row.run_id, row.status, steps, _number(row.loss, ".4f"), _number(row.exact, ".1%")]
    cells += [_setting(row.settings.get(name)) for name in columns]
    cells += ["–" if row.attempts is None else str(row.attempts)]
    cells += [_number(row.gpu_hours, ".2f"), _age(row.age_seconds), reason]
    return [printable(cell) for cell in cells]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _unknown(option: str, name: str, known: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    return Problem(option, f"'{name}' is not a known name", hint)
