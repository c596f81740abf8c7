"""What things cost, in seconds: measured on this project's machines, or assumed and said so."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Costs:
    """Of one way to train one model on one kind of node. All in seconds."""

    step: float
    """An optimizer step."""
    micro_batch: float
    write: float
    """A checkpoint to the work volume, while training waits."""
    overhead: float
    """The whole cost of a periodic checkpoint to training: stall, and slowdown of later steps."""
    upload: float
    """From the written checkpoint until all of it is in storage."""
    commit: float
    restore: float
    start: float
    """From the pod's start to the first step, restore left out."""
    exit: float
    """From the durable state to the end of the process."""
    origin: str = "measured"
    """`measured`, or `assumed`: no number of an assumed row was ever measured."""


MEASURED: Final[dict[str, Costs]] = {
    # SmolLM2-135M, LoRA r=16, 33 MB a checkpoint, 2 cores, loopback S3. The rivals' row: a bare
    # save 0.179 s, stall 0.183 s and 0.350 s slowdown, SIGTERM to durable 0.86 s, exit 3.8 s; a
    # plain script's first step begins after 9.6 s. One micro-batch is 2 rows, a step 4 of them.
    "rival": Costs(6.4, 1.6, 0.179, 0.533, 0.5, 0.02, 0.3, 9.6, 3.8),
    "jit": Costs(6.4, 1.6, 0.179, 0.592, 3.0, 0.0, 0.3, 9.6, 5.4),
    "ours": Costs(6.4, 1.6, 0.179, 0.44, 0.5, 0.02, 0.3, 9.6, 0.5),
}
"""Ours: the same write and upload; the overhead is 0.83 of the rival's, as `benchmarks.checkpoint`
measured both side by side on another machine. With `--costs` all are replaced."""

_GPU_START: Final = 90.0
_UPLOAD_BYTES_PER_SECOND: Final = 200e6


def _assumed(step: float, size: float, start: float) -> Costs:
    """A GPU node: NVMe of 1 GB/s, storage at 200 MB/s. The sizes of checkpoints are known."""
    return Costs(
        step=step,
        micro_batch=step / 4,
        write=size / 1e9,
        overhead=size / 1e9,
        upload=size / _UPLOAD_BYTES_PER_SECOND,
        commit=0.1,
        restore=size / _UPLOAD_BYTES_PER_SECOND,
        start=start,
        exit=0.5,
        origin="assumed",
    )


ASSUMED: Final[dict[str, Costs]] = {
    "8B, r=16 (253 MB)": _assumed(4.0, 253e6, _GPU_START),
    "14B, r=128 (3.3 GB)": _assumed(20.0, 3.32e9, 2 * _GPU_START),
}


def read(path: Path) -> dict[str, Costs]:
    """`{"rival": {"step": …, …}, "jit": …, "ours": …}`: what is not given keeps its figure."""
    given = json.loads(path.read_text())
    return {name: replace(costs, **given.get(name, {})) for name, costs in MEASURED.items()}
