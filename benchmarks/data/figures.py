"""The arithmetic of `benchmarks.data`: runs in, medians, ratios and targets out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

BUSY_CORES: Final = 0.15
"""More than this, and other processes were in the way."""
MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One side over one file. Seconds and bytes."""

    case: str
    """`distinct-hermes`."""
    side: str
    megabytes: float
    """Of the file: 10^6 bytes."""
    rows: int
    tokens: int | None
    seconds: float
    cpu_seconds: float
    parts: Mapping[str, float]
    peak: int
    peak_anonymous: int
    others: float
    """See `benchmarks.data.watched`."""
    compared: int = 0
    identical: int = 0

    @property
    def quiet(self) -> bool:
        return self.others <= BUSY_CORES


@dataclass(frozen=True)
class Target:
    """What issue 3 asks for."""

    what: str
    case: str
    at_least: float
    figure: Callable[[Mapping[str, Mapping[str, float]]], float | None]
    """Of the case's medians by side; `None` where a side is missing."""


def rate(side: str, of: str) -> Callable[[Mapping[str, Mapping[str, float]]], float | None]:
    """How many times as fast `side` is as `of`."""

    def figure(sides: Mapping[str, Mapping[str, float]]) -> float | None:
        if side not in sides or of not in sides:
            return None
        return sides[of]["seconds"] / sides[side]["seconds"]

    return figure


def _checks(sides: Mapping[str, Mapping[str, float]]) -> float | None:
    return sides["job_checks"]["mb_per_cpu_second"] if "job_checks" in sides else None


TARGETS: Final = (
    Target("job / floor, all text distinct", "distinct-hermes", 0.8, rate("job", "floor")),
    Target("job / TRL, all text distinct", "distinct-hermes", 2.2, rate("job", "trl")),
    Target("job / floor, shared system turns", "shared-hermes", 1.5, rate("job", "floor")),
    Target("checks, MB a second of a core, distinct", "distinct-hermes", 100, _checks),
    Target("checks, MB a second of a core, shared", "shared-hermes", 100, _checks),
)
MEMORY_LIMIT: Final = 1024 * MEBIBYTE
"""Of the job, whatever the size of the file. Bytes."""


def summary(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Case → side → medians over the runs."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case, side in dict.fromkeys((run.case, run.side) for run in runs):
        same = [run for run in runs if (run.case, run.side) == (case, side)]
        seconds = median(run.seconds for run in same)
        cpu = median(run.cpu_seconds for run in same)
        size = same[0].megabytes
        found.setdefault(case, {})[side] = {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "mb_per_second": size / seconds,
            "mb_per_cpu_second": size / cpu,
            "peak": max(run.peak for run in same),
            "peak_anonymous": max(run.peak_anonymous for run in same),
            "others": max(run.others for run in same),
        }
    return found


def ratios(sides: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many times as fast the job is as each side beside it that makes tokens."""
    found = {side: rate("job", side)(sides) for side in ("floor", "trl")}
    return {f"job / {side}": figure for side, figure in found.items() if figure is not None}


def targets(medians: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Those whose sides were measured."""
    found = []
    for target in TARGETS:
        figure = target.figure(medians.get(target.case, {}))
        if figure is not None:
            found.append(
                {
                    "what": target.what,
                    "at_least": target.at_least,
                    "measured": figure,
                    "met": figure >= target.at_least,
                }
            )
    return found


def disagreements(runs: Sequence[Run]) -> list[str]:
    """Sides that were to make the same tokens and didn't: in these the timings compare nothing."""
    found = []
    for case in dict.fromkeys(run.case for run in runs):
        by_side = {run.side: run for run in runs if run.case == case}
        if len({run.rows for run in by_side.values()}) > 1:
            found.append(f"{case}: the sides read different numbers of rows")
        job, floor = by_side.get("job"), by_side.get("floor")
        if job and floor and job.tokens != floor.tokens:
            found.append(f"{case}: {job.tokens} tokens, but the plain way gives {floor.tokens}")
    for run in runs:
        if run.identical < run.compared:
            differ = run.compared - run.identical
            found.append(f"{run.case}: {differ} of {run.compared} rows have other ids")
    return found
