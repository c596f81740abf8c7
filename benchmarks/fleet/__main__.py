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
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.figures import markdown, per_event, summed
from benchmarks.fleet.requests import Requests
from benchmarks.fleet.simulated import Plan, run_share, series_of_a_run
from benchmarks.output import leave
from job.demo.s3_server import S3Server
from job.fleet import scan
from job.storage import S3_SCHEME, open_storage

ROOT: Final = Path(__file__).resolve().parents[2]
_START_SECONDS: Final = 15.0
"""Until every process has imported what it needs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 1 where a check failed."""
    arguments = _arguments(argv)
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as name, _root(arguments) as root:
        result: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": os.getloadavg()[0],
            "setup": {k: v for k, v in vars(arguments).items() if k not in ("out", "output")},
            "store": "given" if arguments.output else "embedded",
            "per_event": per_event(f"{root}/alone", Path(name)),
            "series_per_run": series_of_a_run(),
        }
        result["fleet"] = summed(_fleet(arguments, root, Path(name)), arguments.interval)
        result["summary"] = _summary(f"{root}/runs")
    leave(arguments.out, result, markdown(result))
    return 0 if not result["fleet"]["violations"] else 1


def _fleet(arguments: argparse.Namespace, root: str, work: Path) -> list[dict[str, Any]]:
    """All processes' shares, side by side."""
    begin = time.time() + min(_START_SECONDS, 2 + arguments.runs / 25)
    saves = arguments.saves * arguments.interval
    plan = Plan(
        root=f"{root}/runs",
        work=work,
        begin=begin,
        interval=arguments.interval,
        saves=arguments.saves,
        bytes=arguments.bytes,
        storm=(begin + saves / 3, begin + saves / 3 + arguments.storm),
        preemptions=arguments.preemptions,
    )
    shares = [range(n, arguments.runs, arguments.processes) for n in range(arguments.processes)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes) as pool:
        return pool.starmap(run_share, [(plan, share) for share in shares])


def _summary(uri: str) -> dict[str, Any]:
    """What `status --all` costs for these runs."""
    requests = Requests()
    storage = requests.watch(open_storage(uri))
    began = time.perf_counter()
    rows = [row for row in scan(storage) if row is not None]
    seconds = time.perf_counter() - began
    statuses = dict(Counter(row.status for row in rows))
    return {"runs": statuses, "seconds": seconds, "requests": requests.by_class()}


@contextmanager
def _root(arguments: argparse.Namespace) -> Iterator[str]:
    """A fresh place, on the embedded server or below `--output`; emptied in the latter case."""
    name = f"fleet-{uuid.uuid4().hex[:8]}"
    if arguments.output:
        root = f"{arguments.output.rstrip('/')}/{name}"
        try:
            yield root
        finally:
            storage = open_storage(root)
            storage.delete([info.key for info in storage.list()])
        return
    with S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(name)
        yield f"{S3_SCHEME}{name}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--interval", type=float, default=40.0, help="seconds between two saves")
    parser.add_argument("--saves", type=int, default=3, help="a run")
    parser.add_argument("--bytes", type=int, default=4096, help="of a checkpoint's largest file")
    parser.add_argument("--preemptions", type=float, default=0.5, help="probability per run")
    parser.add_argument("--storm", type=float, default=20.0, help="seconds of 503 SlowDown")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--output", help="s3://bucket/prefix of a store of your own")
    default = ROOT / "benchmarks" / "results" / "fleet.json"
    parser.add_argument("--out", type=Path, default=default)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
