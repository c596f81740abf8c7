"""How time and memory of each stage grow with its input: four sizes, and the fitted exponent.

    python -m benchmarks.growth

Each stage runs at each size in processes of its own, so that its peak memory is its own; the time
is the shortest, as whatever else the machine does only adds to it. The exponent is the slope
of the logarithms (least squares), once what every size needs is taken off: 1 is linear. What is
measured is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.growth.fit import exponent
from benchmarks.growth.stages import BUCKET, MIB, STAGES
from benchmarks.machine import machine_now, versions
from benchmarks.output import leave
from job.demo.s3_server import S3Server

ROOT: Final = Path(__file__).resolve().parents[2]
REPEATS: Final = 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes (1)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"of each ({REPEATS})")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "growth.json")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        return _one(*arguments.one)
    facts = machine_now()
    with S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        stages = {
            name: _grown(name, arguments.scale, arguments.repeats) for name in arguments.stages
        }
    stages = _others(arguments.out, stages)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions(),
        "repeats": arguments.repeats,
        "stages": stages,
    }
    leave(arguments.out, result, markdown(result))
    return 0


def _others(out: Path, stages: dict[str, Any]) -> dict[str, Any]:
    """With those that were not asked for, as they were left last time."""
    before = json.loads(out.read_text())["stages"] if out.exists() else {}
    known = before | stages
    return {name: known[name] for name in STAGES if name in known}


def _grown(name: str, scale: float, repeats: int) -> dict[str, Any]:
    sizes = [max(1, round(size * scale)) for size in STAGES[name].sizes]
    found = [_measured(name, size, repeats) for size in sizes]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "unit": STAGES[name].unit,
        "sizes": sizes,
        "seconds": [seconds for seconds, _ in found],
        "peak_bytes": [peak for _, peak in found],
        "seconds_exponent": exponent(sizes, [seconds for seconds, _ in found]),
        "memory_exponent": exponent(sizes, [peak for _, peak in found]),
    }


def _measured(name: str, size: int, repeats: int) -> tuple[float, int]:
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        _in_process(name, "prepare", folder, size)
        found = [_in_process(name, "measure", folder, size) for _ in range(repeats)]
    seconds, peak = min(seconds for seconds, _ in found), max(peak for _, peak in found)
    print(f"{name}, {size}: {seconds:.2f} s, {peak / MIB:.0f} MiB", file=sys.stderr, flush=True)
    return seconds, peak


def _in_process(name: str, step: str, folder: str, size: int) -> tuple[float, int]:
    command = [sys.executable, "-m", "benchmarks.growth", "--one", name, step, folder, str(size)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}, {step}, {size}:\n{done.stderr[-4000:]}")
    seconds, peak = json.loads((Path(folder) / "found.json").read_text())
    return seconds, peak


def _one(name: str, step: str, folder: str, size: str) -> int:
    stage = STAGES[name]
    for module in stage.imports:
        importlib.import_module(module)
    work = getattr(stage, step)
    began = time.perf_counter()
    work(Path(folder), int(size))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (Path(folder) / "found.json").write_text(json.dumps([seconds, peak]))
    return 0


def markdown(result: Mapping[str, Any]) -> str:
    about = f"The shortest of {result['repeats']} times, and the peak memory."
    lines = ["# How the stages grow", "", about, ""]
    for name, stage in result["stages"].items():
        lines += [
            f"## {name}",
            "",
            f"{stage['date']}:",
            "",
            f"| {stage['unit']} | seconds | peak MiB |",
            "| --- | --- | --- |",
        ]
        for size, seconds, peak in zip(
            stage["sizes"], stage["seconds"], stage["peak_bytes"], strict=True
        ):
            lines.append(f"| {size} | {seconds:.2f} | {peak / MIB:.0f} |")
        time_exponent, memory_exponent = stage["seconds_exponent"], stage["memory_exponent"]
        lines += ["", f"Exponents: time {time_exponent}, memory {memory_exponent}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
