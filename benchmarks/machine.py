"""Facts without which a timing says nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Record

VERSIONS: Final = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "boto3")


def versions() -> dict[str, str]:
    return {"Python": platform.python_version()} | {name: version(name) for name in VERSIONS}


def machine(bare: Record, load_before: float) -> dict[str, Any]:
    """This machine, with what a run found on it."""
    return machine_now(load_before) | {"threads": bare.threads, "device": bare.device}


def machine_now(load_before: float | None = None) -> dict[str, Any]:
    """This machine. To be asked before a benchmark loads it, or with the load of that moment."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0] if load_before is None else load_before,
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
