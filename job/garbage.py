"""Python's garbage collector while a process starts: it looks through all that was imported again
and again, and finds nothing: a tenth of the time that importing torch and its like takes."""

from __future__ import annotations

import gc
from typing import Final

_RARELY: Final = 100_000
"""Objects more than have gone since the collection before; Python begins one after 700."""

_USUALLY: Final = gc.get_threshold()


def collect_rarely() -> None:
    """For a process of our own, until `collect_usually`."""
    gc.set_threshold(_RARELY)


def collect_usually() -> None:
    """Before training: a cycle that holds tensors must not hold them for long. Leaves alone what
    somebody else has set."""
    if gc.get_threshold()[0] == _RARELY:
        gc.set_threshold(*_USUALLY)
