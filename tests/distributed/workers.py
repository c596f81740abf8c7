"""The workers of a launcher, found by what `/proc` says of them (Linux)."""

from __future__ import annotations

from pathlib import Path


def worker(launcher: int, rank: int) -> int:
    """The process id of that rank of a launcher."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and _parent(path) == launcher and _has(path, f"RANK={rank}"):
            return int(path.name)
    raise LookupError(f"process {launcher} has no rank {rank}")


def _parent(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def _has(path: Path, variable: str) -> bool:
    try:
        return variable.encode() in (path / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
