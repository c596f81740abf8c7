"""Ports for servers that have to be told theirs, and for clients that are to find nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from job.ranks.node import held_port


@contextmanager
def own_port() -> Iterator[int]:
    """Nobody else's while inside: neither another worker's nor the kernel's for a connection.
    Closed until somebody listens there, with SO_REUSEADDR."""
    with held_port() as held:
        yield int(held.getsockname()[1])
