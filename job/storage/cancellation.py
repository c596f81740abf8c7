"""Ending a transfer that is under way, from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancelled(Exception):
    """The transfer was given up on request; what it has sent so far must not be relied on."""


class Cancellation:
    """Asks any number of transfers to end. Thread-safe; there is no way back."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._lock = threading.Lock()
        self._told: list[Callable[[], None]] = []

    def cancel(self) -> None:
        with self._lock:
            self.requested.set()
            told = list(self._told)
        for tell in told:
            tell()

    def check(self) -> None:
        """Raise `Cancelled` if asked to."""
        if self.requested.is_set():
            raise Cancelled

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """While inside, `tell` is called on a request, by whatever thread makes it; at once where
        it was made already."""
        with self._lock:
            self._told.append(tell)
            already = self.requested.is_set()
        try:
            if already:
                tell()
            yield
        finally:
            with self._lock:
                self._told.remove(tell)
