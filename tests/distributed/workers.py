"""What a run of several processes leaves in its record, and who they are (by `/proc`, of Linux)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from job.ledger import RunRecord, read_record
from job.storage import open_storage


def record_of(env: Mapping[str, str]) -> RunRecord:
    found = read_record(open_storage(f"{env['FORGE_OUTPUT_URI']}/{env['FORGE_RUN_ID']}"))
    assert found is not None
    return found[0]


def durable_step(log: str) -> int:
    """The last one of which the log says so: a checkpoint may be passed over for a newer one."""
    steps = re.findall(r"checkpoint of step (\d+) is durable", log)
    return int(steps[-1]) if steps else 0


def worker(launcher: int, rank: int) -> int:
    """The process id of that rank of a launcher."""
    for process in children(launcher):
        if _has(Path("/proc", str(process)), f"RANK={rank}"):
            return process
    raise LookupError(f"process {launcher} has no rank {rank}")


def children(process: int) -> list[int]:
    """The ids of the processes that it has started and that run."""
    paths = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [int(path.name) for path in paths if _parent(path) == process]


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
