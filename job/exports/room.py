"""Whether merged weights have room: on the work volume, and in the container's memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from job.cgroups import Cgroups
from job.errors import Problem

_GB: Final = 10**9
COPIES: Final = 2
"""On the volume: the merged model, and what is read back of it to verify it."""
GGUF_COPIES: Final = 3
"""The merged model, the file made of it, and what is read back of that."""
_SPARE: Final = 1.2
"""Memory: the weights, a layer's difference in fp32, and the libraries."""
_OWN: Final = Cgroups()


def problems(
    weights: int, work_dir: Path, cgroups: Cgroups = _OWN, *, copies: int = COPIES
) -> Iterator[Problem]:
    """`weights` are bytes in 16 bits."""
    free = shutil.disk_usage(work_dir).free
    if free < weights * copies:
        found = f"{free / _GB:.1f} GB are free, merging takes {weights * copies / _GB:.1f} GB"
        yield Problem("FORGE_WORK_DIR", found, "give it a larger volume, or drop FORGE_EXPORT")
    limit = cgroups.memory_limit()
    if limit is not None and limit[0] < weights * _SPARE:
        found = f"the container has {limit[0] / _GB:.1f} GB of memory ({limit[1]})"
        hint = f"merging takes {weights * _SPARE / _GB:.1f} GB: raise the limit"
        yield Problem("FORGE_EXPORT", found, hint)
