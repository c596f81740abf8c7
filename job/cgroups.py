"""The memory that a container may take, as the kernel tells it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_UNLIMITED: Final = 1 << 60
"""cgroup v1 says "no limit" with a number near 2^63."""


@dataclass(frozen=True)
class Cgroups:
    """Where the kernel tells of this process' memory."""

    mount: Path = Path("/sys/fs/cgroup")
    own: Path = Path("/proc/self/cgroup")

    def memory_limit(self) -> tuple[int, Path] | None:
        """The lowest of those that are set, and the file that says so.

        A container sees its own group as the root; with the host's view the group lies below.
        (cgroup-v2.rst, memory.max; cgroup-v1/memory.rst, memory.limit_in_bytes.)
        """
        limits = [(limit, path) for path in self._files() if (limit := _limit(path)) is not None]
        return min(limits, default=None)

    def _files(self) -> Iterator[Path]:
        yield self.mount / "memory.max"
        yield self.mount / "memory" / "memory.limit_in_bytes"
        try:
            entries = self.own.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for entry in entries:
            _, controllers, path = entry.split(":", 2)
            if not controllers:
                yield self.mount / path.lstrip("/") / "memory.max"
            elif "memory" in controllers.split(","):
                yield self.mount / "memory" / path.lstrip("/") / "memory.limit_in_bytes"


def _limit(path: Path) -> int | None:
    try:
        limit = int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # v2 says "max"
        return None
    return limit if limit < _UNLIMITED else None
