"""A process run to its end, with the memory that it and the processes it starts take. Linux."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SAMPLE_SECONDS: Final = 0.05
_TAIL: Final = 4000
_FIELDS: Final = ("VmRSS", "VmHWM", "RssAnon")


@dataclass(frozen=True)
class Watched:
    """Bytes, of the whole tree of processes, imports included."""

    peak: int
    """Resident, mapped files included, whose pages the kernel takes back when it needs them."""
    peak_anonymous: int
    """Resident without mapped files."""
    others: float
    """Cores that other processes of the machine kept busy meanwhile, on average."""


class SideFailed(Exception):
    """A side ended with an error; the text is the end of its log."""


def run(command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> Watched:
    """Raises `SideFailed`."""
    began, busy, own = time.perf_counter(), _busy_seconds(), _children_seconds()
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=cwd, stdout=file, stderr=file)
        try:
            peak, anonymous = _watch(process)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise SideFailed(log.read_text(errors="replace")[-_TAIL:])
    seconds = time.perf_counter() - began
    others = (_busy_seconds() - busy) - (_children_seconds() - own)
    return Watched(peak, anonymous, max(0.0, others / seconds))


def _watch(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The largest sums over the tree while it runs."""
    peak = anonymous = 0
    while True:
        found = [one for pid in _tree(process.pid) if (one := usage(pid))]
        peak = max([peak, sum(one["VmRSS"] for one in found), *(one["VmHWM"] for one in found)])
        anonymous = max(anonymous, sum(one["RssAnon"] for one in found))
        try:
            process.wait(_SAMPLE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return peak, anonymous


def _tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for known in found:
        for children in Path(f"/proc/{known}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # it has just ended
    return found


def usage(pid: int) -> dict[str, int]:
    """Bytes by field of its `/proc/<pid>/status`; empty for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    named = (line.split(":", 1) for line in lines)
    found = {name: int(rest.split()[0]) * 1024 for name, rest in named if name in _FIELDS}
    return found if len(found) == len(_FIELDS) else {}


def _busy_seconds() -> float:
    """Of all cores since the machine started."""
    names = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, names)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
