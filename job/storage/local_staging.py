"""A local root's own folder: the lock of its writers, and their files that aren't whole yet."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Final

from job.storage.local_files import temporary

_LOCK: Final = "lock"


class Staging:
    """On the root's own file system, so that a file takes its place in one step. Thread-safe, and
    made for several processes: each use opens its files for itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time, among threads and processes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def file(self) -> Iterator[tuple[BufferedWriter, Path]]:
        """A new file, gone at the end unless it was renamed. It has a lock of its own, which its
        writer can't leave behind as it can the file: see `forget`."""
        with ExitStack() as stack:
            with self.locked():  # or it could be forgotten before it is locked
                file, path = stack.enter_context(temporary(self._folder))
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file, path

    def forget(self) -> int:
        """Remove the files of writers that were killed; returns how many."""
        if not self._folder.is_dir():
            return 0
        with self.locked():
            return sum(_removed(path) for path in self._folder.iterdir() if path.name != _LOCK)


def _removed(path: Path) -> bool:
    """False for one that somebody is writing, or is about to remove."""
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True
