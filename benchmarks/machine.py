"""Facts without which a timing says nothing."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

VERSIONS: Final = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "boto3")


BUSY_LOAD: Final = 0.5


def versions() -> dict[str, str]:
    return {"Python": platform.python_version()} | {name: version(name) for name in VERSIONS}


def machine_now() -> dict[str, Any]:
    """This machine. To be asked before a benchmark loads it; says so where another one does."""
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        told = f"load is {load:.1f}: something else runs here, and the timings will be noise"
        print(told, file=sys.stderr, flush=True)
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": load,
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def described(facts: Mapping[str, Any]) -> str:
    """In a line, for the table of a result."""
    threads = f"{facts['threads']} threads, " if "threads" in facts else ""
    cores, load = facts["cores"], facts["load_before"]
    return f"{facts['cpu']}, {cores} cores, {threads}load {load:.1f} before it"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
