"""Goodput of a week's training on spot nodes: this job, and other ways to save.

    python -m benchmarks.goodput

What is simulated, from which figures, and what is assumed, is in benchmarks/goodput/README.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

from benchmarks.goodput.costs import ASSUMED, MEASURED, Costs, read
from benchmarks.goodput.goal import AT_RATE, GOAL, judged
from benchmarks.goodput.simulation import Interruption, Outcome, Policy, simulate, young_daly
from benchmarks.goodput.traces import bursty, poisson, recorded
from benchmarks.machine import machine_now, versions
from benchmarks.output import leave

ROOT: Final = Path(__file__).resolve().parents[2]
RATES: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
SAVE_STEPS: Final = 50
SAVE_SECONDS: Final = 600.0

Trace = Callable[[float, float, int], Iterator[Interruption]]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    facts = machine_now()
    costs = read(arguments.costs) if arguments.costs else MEASURED
    kinds: dict[str, Trace] = {"Poisson": poisson, "bursty": bursty}
    if arguments.trace:
        kinds = {arguments.trace.name: lambda _, share, s: recorded(arguments.trace, share, s)}
    settings = {"embedded, SmolLM2": costs} | {
        name: dict.fromkeys(MEASURED, value) for name, value in ASSUMED.items()
    }
    rows = [
        row
        for setting, by_policy in settings.items()
        for kind, trace in kinds.items()
        for share in (0.0, 0.1)
        for rate in RATES
        for row in _rows(setting, by_policy, kind, trace, share, rate, arguments)
    ]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions(),
        "grace_seconds": arguments.grace,
        "repeats": arguments.repeats,
        "seed": arguments.seed,
        "costs": {name: {k: asdict(c) for k, c in by.items()} for name, by in settings.items()},
        "rows": rows,
        "verdicts": [_verdict(rows, setting) for setting in settings],
    }
    leave(arguments.out, result, _markdown(result))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--costs", type=Path, help="JSON of measured costs")
    parser.add_argument("--trace", type=Path, help="CSV of interruptions, in seconds")
    parser.add_argument("--grace", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    default = ROOT / "benchmarks" / "results" / "goodput.json"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args(argv)
    if arguments.repeats < 2:
        parser.error("--repeats: at least 2, for an interval")
    return arguments


def policies(costs: dict[str, Costs], rate: float) -> list[Policy]:
    """Ours, the others, and what no job can do without: the start-up of each attempt."""
    ours, rival, jit = costs["ours"], costs["rival"], costs["jit"]
    interval = min(SAVE_SECONDS, SAVE_STEPS * ours.step)
    best = young_daly(rival.overhead, 3600 / rate)
    free = replace(
        ours,
        micro_batch=1e-3,
        step=1e-3,
        write=0,
        overhead=0,
        upload=0,
        commit=0,
        exit=0,
        restore=0,
    )
    return [
        Policy("ours", ours, interval, "micro-batch"),
        Policy("asynchronous, stops at a step (rival)", rival, interval, "step"),
        Policy("save on SIGTERM after 3 s (transformers)", jit, interval, "step", waits=3.0),
        Policy("periodic, the same interval", rival, interval, None),
        Policy("periodic, Young/Daly interval", rival, best, None),
        Policy("start-up alone: the ceiling", free, 1e-3, "micro-batch"),
    ]


def _rows(
    setting: str,
    costs: dict[str, Costs],
    kind: str,
    trace: Trace,
    share: float,
    rate: float,
    arguments: argparse.Namespace,
) -> Iterator[dict[str, Any]]:
    for policy in policies(costs, rate):
        runs = [
            simulate(policy, trace(rate, share, arguments.seed + n), arguments.grace)
            for n in range(arguments.repeats)
        ]
        yield {
            "setting": setting,
            "interruptions": kind,
            "per_hour": rate,
            "hard_share": share,
            "policy": policy.name,
        } | _figures(runs)


def _figures(runs: list[Outcome]) -> dict[str, Any]:
    goodputs = [run.goodput for run in runs]
    return {
        "goodput": mean(goodputs),
        "half_width": 1.96 * stdev(goodputs) / math.sqrt(len(runs)),
        "lost_hours": {c: mean(getattr(r, c) for r in runs) / 3600 for c in runs[0].causes},
    }


def _verdict(rows: list[dict[str, Any]], setting: str) -> str:
    """Whether ours keeps the goal at one interruption an hour; worked out, not written down."""
    row = judged(rows, setting)
    said = f"{setting}: at {AT_RATE:g} interruption an hour ours reaches {row['goodput']:.2%}"
    if row["goodput"] >= GOAL:
        return f"{said}, at or above {GOAL:.0%}."
    cause = max(row["lost_hours"], key=lambda name: row["lost_hours"][name])
    return (
        f"{said}, below {GOAL:.0%}: most is lost to {cause} "
        f"({row['lost_hours'][cause]:.1f} hours in the week)."
    )


def _markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Goodput on spot nodes, simulated",
        "",
        (
            f"{result['date']}, grace {result['grace_seconds']:g} s, {result['repeats']} weeks. "
            "Settings other than the embedded one are assumptions, not measurements."
        ),
        "",
        *(f"- {verdict}" for verdict in result["verdicts"]),
    ]
    tables: dict[tuple[str, str, float], dict[str, dict[float, dict[str, Any]]]] = {}
    for row in result["rows"]:
        key = (row["setting"], row["interruptions"], row["hard_share"])
        tables.setdefault(key, {}).setdefault(row["policy"], {})[row["per_hour"]] = row
    for (setting, kind, share), by_policy in tables.items():
        lines += ["", f"## {setting}: {kind}, {share:.0%} without notice", ""]
        lines += ["| per hour | " + " | ".join(f"{rate:g}" for rate in RATES) + " |"]
        lines += ["| --- |" + " --- |" * len(RATES)]
        lines += [
            f"| {policy} | "
            + " | ".join(
                f"{100 * by_rate[r]['goodput']:.2f} ± {100 * by_rate[r]['half_width']:.2f}"
                for r in RATES
            )
            + " |"
            for policy, by_rate in by_policy.items()
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
