"""Each command as a whole process, beside its naive counterpart; `benchmarks.commands` runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from benchmarks.commands.place import BUCKET, Place

Benchmark = Callable[..., None]
"""pytest-benchmark's fixture; its types are incomplete."""

ONE = f"s3://{BUCKET}/runs/run-000"
ALL = f"s3://{BUCKET}/runs"
ROWS = f"s3://{BUCKET}/data/rows.jsonl"

JOB = ("-m", "job")
NAIVE = ("-m", "benchmarks.commands.naive")

COMMANDS = {
    "interpreter": ("-c", "pass"),
    "help": (*JOB, "--help"),
    "status": (*JOB, "status", ONE),
    "status, naive": (*NAIVE, "status", ONE),
    "status --all": (*JOB, "status", ALL, "--all"),
    "status --all, naive": (*NAIVE, "all", ALL),
    "validate": (*JOB, "validate"),
    "validate, naive": (*NAIVE, "validate", ROWS, "MODEL"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_command(name: str, benchmark: pytest.FixtureRequest, place: Place) -> None:
    words = [str(place.model) if word == "MODEL" else word for word in COMMANDS[name]]
    command = [sys.executable, *words]

    def run() -> None:
        subprocess.run(command, cwd=place.root, env=place.env, check=True, capture_output=True)

    benchmark.pedantic(run, rounds=place.rounds, warmup_rounds=1)  # type: ignore[attr-defined]
