"""A map of bounded size for what many rows share: the tools, the system turn."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Forgets what was not asked for while `limit` of other weight came in.

    Two generations instead of a queue: a hit costs one lookup, and rows that share nothing cost
    no more than an insertion each.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K, weight: int) -> V | None:
        """What was put under `key`; `weight` is that of `put`."""
        value = self._young.get(key)
        if value is None and self._old and (value := self._old.get(key)) is not None:
            self.put(key, value, weight)
        return value

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep `value`, which costs `weight` in a unit of the caller's choice."""
        if self._weight + weight > self._limit:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = value
        self._weight += weight
