"""A map of bounded size for what many rows share: the tools, the system turn."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

V = TypeVar("V")

_ONCE: Final = 65_536
"""Keys that came once, of which only the hash is remembered."""


class Recent(Generic[V]):
    """Keeps what is put a second time, by its text; forgets what isn't asked for any more.

    So rows that share nothing leave nothing behind for the garbage collector to walk over. Two
    generations instead of a queue: a hit costs one lookup.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: so much of keys (their lengths) is kept, twice at most."""
        self._limit = limit
        self._size = 0
        self._young: dict[str | bytes, V] = {}
        self._old: dict[str | bytes, V] = {}
        self._once: set[int] = set()

    def get(self, key: str | bytes) -> V | None:
        """What is kept under `key`."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self._keep(key, value)
        return value

    def put(self, key: str | bytes, value: V) -> None:
        """Keep `value` if its key came before."""
        if (mark := hash(key)) in self._once:
            self._keep(key, value)
            return
        if len(self._once) >= _ONCE:
            self._once.clear()
        self._once.add(mark)

    def _keep(self, key: str | bytes, value: V) -> None:
        if self._size + len(key) > self._limit:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[key] = value
        self._size += len(key)
