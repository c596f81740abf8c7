"""Whether merged weights have room: on the work volume, and in the container's memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from job.errors import Problem

_GB: Final = 10**9
COPIES: Final = 2
"""On the volume: the merged model, and what is read back of it to verify it."""
GGUF_COPIES: Final = 3
"""The merged model, the file made of it, and what is read back of that."""
_SPARE: Final = 1.2
"""Memory: the weights, a layer's difference in fp32, and the libraries."""
_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
"""Of the container (cgroup-v2.rst)."""


def problems(
    weights: int, work_dir: Path, limit_file: Path = _LIMIT, *, copies: int = COPIES
) -> Iterator[Problem]:
    """`weights` are bytes in 16 bits."""
    free = shutil.disk_usage(work_dir).free
    if free < weights * copies:
        found = f"{free / _GB:.1f} GB are free, merging takes {weights * copies / _GB:.1f} GB"
        yield Problem("FORGE_WORK_DIR", found, "give it a larger volume, or drop FORGE_EXPORT")
    limit = _memory_limit(limit_file)
    if limit is not None and limit < weights * _SPARE:
        found = f"the container has {limit / _GB:.1f} GB of memory"
        hint = f"merging takes {weights * _SPARE / _GB:.1f} GB: raise the limit"
        yield Problem("FORGE_EXPORT", found, hint)


def _memory_limit(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return None
