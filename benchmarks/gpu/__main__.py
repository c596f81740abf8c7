"""Everything that only a GPU can show, in stages: see benchmarks/gpu/README.md.

python -m benchmarks.gpu all
python -m benchmarks.gpu speed-8b
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.stages import STAGES
from benchmarks.gpu.suite import BUCKET, ROOT, Suite
from benchmarks.gpu.table import collect, markdown
from benchmarks.output import leave
from job.config import PREFIX
from job.demo.s3_server import S3Server
from job.profiles import PROFILES

VERSIONS: Final = ("torch", "triton", "unsloth", "transformers", "trl", "peft", "bitsandbytes")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where a stage has left a failure."""
    arguments = _arguments(argv)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was measured is left
    arguments.folder.mkdir(parents=True, exist_ok=True)
    names = list(STAGES) if arguments.stage == "all" else [arguments.stage]
    measurements = arguments.folder / f"measured-{arguments.device}"
    with S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        suite = Suite(
            arguments.device,
            arguments.folder,
            measurements,
            arguments.steps,
            tuple(arguments.profiles),
        )
        for name in names:
            try:
                STAGES[name](suite)
            finally:
                _leave(arguments, measurements)
    return 1 if any("failed" in found for found in collect(measurements).values()) else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stage", choices=["all", *STAGES])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--steps", type=int, default=10, help="of each run")
    default = Path(tempfile.gettempdir()) / "forge-gpu"
    parser.add_argument("--folder", type=Path, default=default, help="models, rows, logs: 40 GB")
    parser.add_argument("--out", type=Path, help="the JSON file (default: in benchmarks/results)")
    arguments = parser.parse_args(argv)
    if arguments.steps < 6:
        parser.error("--steps: at least 6, since the first three aren't compared")
    default = ROOT / "benchmarks" / "results" / f"gpu-{arguments.device}.json"
    arguments.out = arguments.out or default
    return arguments


def _leave(arguments: argparse.Namespace, measurements: Path) -> None:
    """After each stage: what there is by then."""
    facts = _facts(arguments.device)
    found = collect(measurements)
    leave(arguments.out, facts | {"found": found}, markdown(facts, found))


def _facts(device: str) -> dict[str, Any]:
    name, driver = _card() if device == "cuda" else ("CPU", "none")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "name": name,
        "driver": driver,
        "versions": {name: found for name in VERSIONS if (found := _version(name))},
    }


def _card() -> tuple[str, str]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    name, driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
        ", ", 1
    )
    return name, driver.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
