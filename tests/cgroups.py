"""A control group's files, as a kernel shows them to a container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from job.cgroups import Cgroups


def made(folder: Path, files: Mapping[str, str], own: str = "0::/\n") -> Cgroups:
    """`files` by their names below the mount; `own` is what /proc/self/cgroup says."""
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Cgroups(folder / "cgroup", folder / "own")
