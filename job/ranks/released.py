"""Rank 0's word to its launcher: training is over, and what is left it does alone.

Over a pipe that only the launcher and rank 0 hold, as neither the store nor a signal says it: the
launcher is free of torch, and its signals mean the end of the pod.
"""

from __future__ import annotations

import os
from typing import Final

_VARIABLE: Final = "JOB_LAUNCHER_FD"


class Release:
    """The launcher's end."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_blocking(self._read, False)
        self._heard = False

    @property
    def environment(self) -> dict[str, str]:
        """Of the process that inherits `fd`."""
        return {_VARIABLE: str(self.fd)}

    def heard(self) -> bool:
        if not self._heard:
            try:
                self._heard = bool(os.read(self._read, 1))
            except BlockingIOError:
                return False
        return self._heard


def release() -> None:
    """Say it; without a launcher of ours there is nobody to hear it."""
    if fd := os.environ.pop(_VARIABLE, ""):
        os.write(int(fd), b"1")
