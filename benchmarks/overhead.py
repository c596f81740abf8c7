"""What the job costs beside training: the bare script and the job in turns, on the same rows.

    python -m benchmarks.overhead

Run it from the repository's root on a machine that does nothing else. Writes a JSON file and a
Markdown table beside it. What is measured, and how to read it, is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from benchmarks.figures import Comparison, Record, by_name, compare, markdown, summary
from benchmarks.machine import machine_now, versions
from benchmarks.output import leave
from benchmarks.sides import (
    BATCH,
    HEARTBEAT_SECONDS,
    SAVE_STEPS,
    SCRAPE_SECONDS,
    Bench,
    parsed,
    run_bare,
    run_job,
    served,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where the two sides did not compute the same losses."""
    arguments = parsed(argv, __doc__, "overhead", steps=12, turns=("pairs", 3))
    facts = machine_now()
    with served(arguments.model, arguments.steps) as bench:
        runs = [_pair(bench, number) for number in range(arguments.pairs)]
    bare = runs[0][1]
    facts |= {"threads": bare.threads, "device": bare.device}
    result = _result(arguments, bench, runs) | {"machine": facts}
    leave(arguments.out, result, markdown(result))
    return 0 if result["same_losses"] else 1


def _pair(bench: Bench, number: int) -> tuple[str, Record, Record]:
    """One run of each; who is first changes, so that a drift of the machine's speed cancels."""
    if number % 2 == 0:
        bare = run_bare(bench, f"bare-{number}")
        return "bare", bare, run_job(bench, f"job-{number}")
    job = run_job(bench, f"job-{number}")
    return "job", run_bare(bench, f"bare-{number}"), job


def _result(
    arguments: argparse.Namespace, bench: Bench, runs: Sequence[tuple[str, Record, Record]]
) -> dict[str, Any]:
    pairs: list[Comparison] = [
        compare(first, bare, job, bench.saved()) for first, bare, job in runs
    ]
    jobs = [job for _, _, job in runs]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "setup": {
            "model": arguments.model,
            "steps": bench.steps,
            "batch": BATCH,
            "mean_tokens": bench.mean_tokens,
            "pairs": len(pairs),
            "save_steps": SAVE_STEPS,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "scrape_seconds": SCRAPE_SECONDS,
        },
        "versions": versions(),
        "same_losses": all(pair.same_losses for pair in pairs),
        "median": summary(pairs),
        "pairs": [asdict(pair) for pair in pairs],
        "own_code": by_name(jobs),
        "losses": runs[0][1].losses,
        "seconds": [{"bare": a.durations(), "job": b.durations()} for _, a, b in runs],
    }


def _say(text: str) -> None:
    print(f"overhead: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
