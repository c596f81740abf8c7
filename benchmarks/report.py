"""What the report of a long run costs: seconds to build, bytes to keep and to open.

    python -m benchmarks.report

Each length is built in a process of its own, three times; the first build has to import matplotlib.
Writes a JSON file and a Markdown table beside it.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.machine import BUSY_LOAD, described, machine_now, versions
from benchmarks.output import leave
from job.ledger import Attempt, Holder, Progress, RunRecord
from job.report import build

ROOT: Final = Path(__file__).resolve().parent.parent
STEPS: Final = (1_000, 10_000, 100_000)
REPEATS: Final = 3
TARGET_SECONDS: Final = 5.0
"""At the longest."""
TARGET_BYTES: Final = 3_000_000
"""Of the page, at the longest."""
EVAL_STEPS: Final = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where the longest run misses a target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    default = ROOT / "benchmarks" / "results" / "report.json"
    parser.add_argument("--out", type=Path, default=default, help="the JSON file")
    arguments = parser.parse_args(argv)
    facts = machine_now()
    processes = multiprocessing.get_context("spawn")
    rows = []
    for steps in arguments.steps:
        with processes.Pool(1) as fresh:
            rows.append(fresh.apply(measure, (steps,)))
    met = all(_meets(row) for row in rows)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions() | {"matplotlib": version("matplotlib")},
        "targets": {"seconds": TARGET_SECONDS, "page_bytes": TARGET_BYTES, "met": met},
        "runs": rows,
    }
    leave(arguments.out, result, markdown(result))
    return 0 if met else 1


def measure(steps: int) -> dict[str, Any]:
    """Build the report of a run of so many steps, in this process."""
    log, run = history(steps), finished(steps)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        files = build(run, log, {"rows": {"train": steps * 16}}, None, 2.5)
        seconds.append(round(time.perf_counter() - start, 3))
    return {
        "steps": steps,
        "first_seconds": seconds[0],
        "later_seconds": median(seconds[1:]),
        "bytes": {name: len(content) for name, content in files.items()},
    }


def history(steps: int) -> list[dict[str, Any]]:
    """A log as the trainer keeps it: noisy, a validation every `EVAL_STEPS`."""
    chosen, log = random.Random(0), list[dict[str, Any]]()  # noqa: S311 - noise
    for step in range(1, steps + 1):
        loss = 2 * math.exp(-4 * step / steps) + 0.4
        log.append(
            {
                "step": step,
                "epoch": step / steps,
                "loss": loss + chosen.gauss(0, 0.1),
                "learning_rate": 2e-4 * (1 - step / steps),
                "grad_norm": 0.5 + chosen.expovariate(3),
                "step_seconds": 3 + chosen.random(),
                "tokens": 9000,
                "supervised_tokens": 1800 + chosen.randrange(400),
                "samples": 16,
            }
        )
        if step % EVAL_STEPS == 0:
            log.append({"step": step, "epoch": step / steps, "eval_loss": loss + 0.05})
    return log


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    targets = result["targets"]
    about = (
        f"{result['date']}, matplotlib {result['versions']['matplotlib']}, "
        f"{described(result['machine'])}: above {BUSY_LOAD} other work ran beside it, and the "
        "seconds are upper bounds."
    )
    lines = [
        "# What a report costs",
        "",
        about,
        "",
        "| steps | first build | later builds | report.html | metrics.jsonl | report.json |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['steps']:,} | {row['first_seconds']:.2f} s | {row['later_seconds']:.2f} s | "
        + " | ".join(
            f"{row['bytes'][name] / 1e3:,.0f} kB"
            for name in ("report.html", "metrics.jsonl", "report.json")
        )
        + " |"
        for row in result["runs"]
    ]
    said = "met" if targets["met"] else "MISSED"
    end = (
        f"Targets, for each: {targets['seconds']:.0f} s for a build, the import of matplotlib "
        f"included, and {targets['page_bytes'] / 1e6:.0f} MB for the page: {said}."
    )
    return "\n".join([*lines, "", end, ""])


def _meets(row: dict[str, Any]) -> bool:
    page: int = row["bytes"]["report.html"]
    return bool(row["first_seconds"] <= TARGET_SECONDS and page <= TARGET_BYTES)


def finished(steps: int) -> RunRecord:
    attempt = Attempt(
        number=1,
        holder=Holder(token="benchmark"),  # noqa: S106 - of a record that nobody owns
        started_at="2026-01-01T00:00:00.000+00:00",
        to_step=steps,
        exit_code=0,
        reason="finished",
    )
    return RunRecord(
        run_id="long",
        status="succeeded",
        attempt=1,
        attempts=[attempt],
        progress=Progress(phase="finished", step=steps, max_steps=steps),
        updated_at="2026-01-04T00:00:00.000+00:00",
    )


if __name__ == "__main__":
    sys.exit(main())
