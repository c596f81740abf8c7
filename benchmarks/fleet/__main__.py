"""Hundreds of runs at once on one store: the job's own ledger, heartbeat and checkpoints, no model.

    python -m benchmarks.fleet

What is real and what is made up, and what the checks mean, is in benchmarks/fleet/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.figures import markdown, per_event, summed
from benchmarks.fleet.place import fresh_root
from benchmarks.fleet.requests import Requests
from benchmarks.fleet.simulated import (
    Plan,
    Together,
    join,
    run_share,
    series_of_a_run,
    stand_ready,
)
from benchmarks.machine import machine_now, versions
from benchmarks.output import leave
from job.status.records import scan
from job.storage import open_storage

ROOT: Final = Path(__file__).resolve().parents[2]
_REQUEST_SECONDS: Final = 0.01
"""Of a processor, for one request: 4 ms in the client, 6 in the embedded store (measured)."""
_REQUESTS_A_SAVE: Final = 10
"""With the heartbeats between two, and a share of restarts."""
_LOAD: Final = 0.7
"""Of the processors, on average: what is left takes the storm and the restarts."""
_SHORTEST_INTERVAL: Final = 12.0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 where a check failed."""
    arguments = _arguments(argv)
    with (
        tempfile.TemporaryDirectory(prefix="fleet-bench-") as name,
        fresh_root(arguments.output) as root,
    ):
        result: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine_now(),
            "versions": versions(),
            "setup": {k: v for k, v in vars(arguments).items() if k not in ("out", "output")},
            "store": "given" if arguments.output else "embedded",
            "per_event": per_event(f"{root}/alone", Path(name)),
            "series_per_run": series_of_a_run(),
        }
        try:
            shares = _fleet(arguments, root, Path(name))
        except multiprocessing.TimeoutError:
            told = f"{arguments.runs} runs did not end within {arguments.limit:g} s"
            print(f"{told}: take fewer, or a longer --interval", file=sys.stderr)
            return 1
        result["fleet"] = summed(shares, arguments.interval)
        result["summary"] = _summary(f"{root}/runs")
    leave(arguments.out, result, markdown(result))
    return 0 if not result["fleet"]["violations"] else 1


def _fleet(arguments: argparse.Namespace, root: str, work: Path) -> list[dict[str, Any]]:
    """All processes' shares, side by side. Raises `multiprocessing.TimeoutError`."""
    context = multiprocessing.get_context("spawn")
    count = arguments.processes
    shared = Together(context, count)
    with context.Pool(count, initializer=join, initargs=(shared,)) as pool:
        pool.map(stand_ready, range(count), chunksize=1)
        plan = Plan(
            root=f"{root}/runs",
            work=work,
            begin=time.time() + 1,
            runs=arguments.runs,
            interval=arguments.interval,
            saves=arguments.saves,
            bytes=arguments.bytes,
            storm=arguments.storm,
            preemptions=arguments.preemptions,
        )
        shares = [(plan, range(n, arguments.runs, count)) for n in range(count)]
        return pool.starmap_async(run_share, shares, chunksize=1).get(arguments.limit)


def _summary(uri: str) -> dict[str, Any]:
    """What `status --all` costs for these runs."""
    requests = Requests()
    storage = requests.watch(open_storage(uri))
    began = time.perf_counter()
    rows = [row for row in scan(storage) if row is not None]
    seconds = time.perf_counter() - began
    statuses = dict(Counter(row.status for row in rows))
    return {"runs": statuses, "seconds": seconds, "requests": requests.by_class()}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    interval = "seconds between two saves; else what these cores can bear"
    parser.add_argument("--interval", type=float, help=interval)
    parser.add_argument("--saves", type=int, default=3, help="a run")
    parser.add_argument("--bytes", type=int, default=4096, help="of a checkpoint's largest file")
    parser.add_argument("--preemptions", type=float, default=0.5, help="probability per run")
    parser.add_argument("--storm", type=float, default=20.0, help="seconds of 503 SlowDown")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds, then it is given up")
    parser.add_argument("--output", help="s3://bucket/prefix of a store of your own")
    default = ROOT / "benchmarks" / "results" / "fleet.json"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args(argv)
    if arguments.interval is None:
        needed = arguments.runs * _REQUESTS_A_SAVE * _REQUEST_SECONDS
        arguments.interval = max(_SHORTEST_INTERVAL, needed / (_LOAD * _cores()))
    return arguments


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main())
