"""An observer that remembers what it was told."""

from __future__ import annotations

import threading
from collections import Counter


class Counts:
    """Look at it while no transfer is under way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()

    def sent(self, count: int) -> None:
        with self.lock:
            self.bytes["sent"] += count

    def received(self, count: int) -> None:
        with self.lock:
            self.bytes["received"] += count

    def retried(self, operation: str) -> None:
        with self.lock:
            self.retries[operation] += 1
