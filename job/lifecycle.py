"""Stopping: SIGTERM and background failures become one token that the work looks at.

A signal only sets a flag and a reason. Where there is nothing to save (imports, download, model
load, tokenizing, evaluation) the handler ends the work at once by raising `Preempted`; inside
`StopToken.deferred()` (training, commits, publishing) it waits until the code there calls
`check()` at a boundary of its own choosing.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from job.errors import Preempted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopToken:
    """One flag for every reason to stop. Thread-safe; the first reason wins.

    `grace_seconds` starts to run at the first request, as the kubelet's clock does.
    """

    def __init__(self, grace_seconds: float = 30.0) -> None:
        self.grace_seconds = grace_seconds
        self._cause: BaseException | None = None
        self._since = 0.0
        self._deferred = 0
        self._signalled = False
        self._raised = False
        self._lock = threading.RLock()

    @property
    def requested(self) -> bool:
        return self._cause is not None

    @property
    def cause(self) -> BaseException | None:
        """What `check` raises: `Preempted`, `Fenced`, or a background failure."""
        return self._cause

    @property
    def signalled(self) -> bool:
        """Whether a signal arrived, be it the first cause or a later one."""
        return self._signalled

    def seconds_left(self) -> float:
        """Of the grace period; all of it while nobody has asked to stop. Never negative."""
        if not self.requested:
            return self.grace_seconds
        return max(0.0, self.grace_seconds - (time.monotonic() - self._since))

    def request(self, cause: BaseException) -> None:
        """Ask for a stop from any thread; takes effect at the next `check`."""
        with self._lock:
            if self._cause is None:
                self._since = time.monotonic()
                self._cause = cause

    def check(self) -> None:
        """Raise the cause, if anyone has asked to stop."""
        if self._cause is not None:
            self._raised = True
            raise self._cause

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, a signal only sets the flag. Main thread only; nests."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def settle(self) -> None:
        """How the process ends is decided: from now on a signal only sets the flag."""
        self._deferred += 1

    def install(self) -> None:
        """Handle SIGTERM and SIGINT from now on. Main thread only."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def uninstall(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        first, self._signalled = not self._signalled, True
        self.request(Preempted(f"received {signal.Signals(number).name}"))
        # A background failure that nobody has looked at yet can't wait any longer either.
        if first and not self._deferred and not self._raised:
            self.check()
