"""The held-out side, chosen by a hash of the prompt.

A row's side depends on its own prompt and on nothing else, so neither growth nor another order of
the data moves a row, and rows with the same prompt stay on one side.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import orjson

from job.dataset.row import Row

T = TypeVar("T")

_BITS: Final = 53
"""What a float holds exactly, so that a place is below 1."""


def place(row: Row) -> float:
    """Where the row's prompt (what comes before the first answer) falls in [0, 1)."""
    prompt = row.messages[: row.assistant_turns[0]]
    # Fixed for ever: another hash would move held-out rows into training.
    texts = orjson.dumps([[turn["role"], turn["content"]] for turn in prompt])
    digest = hashlib.blake2b(texts, digest_size=8).digest()
    return float((int.from_bytes(digest) >> (64 - _BITS)) / 2**_BITS)


def content_hash(row: Row) -> int:
    """64 bits of all that the model sees of the row."""
    try:
        seen = orjson.dumps((row.messages, row.tools))
    except TypeError:  # a whole number over 64 bits
        seen = repr((row.messages, row.tools)).encode()
    return int.from_bytes(hashlib.blake2b(seen, digest_size=8).digest())


@dataclass
class LowestPlaces(Generic[T]):
    """Keeps the `limit` items with the lowest places, in memory for that many only."""

    limit: int
    unused: int = 0
    """Items that were left out."""
    _heap: list[tuple[float, int, int, T]] = field(default_factory=list)

    def add(self, place: float, tie: int, item: T) -> None:
        """`tie` decides between equal places; of equal ties the first one stays."""
        entry = (-place, -tie, -len(self._heap) - self.unused, item)
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)
            self.unused += 1

    def items(self) -> list[T]:
        """By place, so that the order of the data doesn't matter."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[:3], reverse=True)]
