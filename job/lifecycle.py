"""Stopping: SIGTERM and background failures become one token that the work looks at.

A signal only sets a flag and a reason. Where there is nothing to save (imports, download, model
load, tokenizing, evaluation) the handler ends the work at once by raising `Preempted`; inside
`StopToken.deferred()` (training, commits, publishing) it waits until the code there calls
`check()` at a boundary of its own choosing. Where neither happens in time, since the main thread
is deep in C code or waits for a dead connection, the watch over the token (`job.watchdog`) ends
the process.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from job.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
WAKE = signal.SIGUSR1
"""Sent to the main thread by another one that has asked to stop: nobody takes this pod away."""

REPORT_SECONDS = 20.0
"""So long the end of a failed run waits for its report to be drawn and stored."""

TRACKERS_SECONDS = 20.0
"""For all of them together, to be told how the attempt ended; half of the grace period at most."""


@contextmanager
def told_apart(is_end: Callable[[BaseException], bool]) -> Iterator[None]:
    """Inside, an error that was raised because of an end is that end.

    A signal may arrive while a library imports a module. What comes out then is the import's error
    (transformers' `ModuleNotFoundError`; before Python 3.12 a `RuntimeError` of the class that was
    being made).
    """
    end: BaseException | None = None
    try:
        yield
    except Exception as error:
        end = next(filter(is_end, _reasons(error)), None)
        if end is None:
            raise
    if end is not None:
        raise end


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """`error`, and what it was raised for, as a traceback would show them."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        hidden = None if found.__suppress_context__ else found.__context__
        found = found.__cause__ or hidden


class StopToken:
    """One flag for every reason to stop. Thread-safe; the first reason wins.

    `grace_seconds` starts to run at the first signal, as the kubelet's clock does; where there is
    none, at the first request.
    """

    def __init__(self, grace_seconds: float = 30.0) -> None:
        self.grace_seconds = grace_seconds
        self._cause: BaseException | None = None
        self._since = 0.0
        self._deferred = 0
        self._undeferred_at = 0.0
        self._leaving = False
        self._signalled = False
        self._handled = False
        self._clock_runs = False
        self._raised = False
        self._lock = threading.RLock()
        self._requested = threading.Event()

    @property
    def requested(self) -> bool:
        return self._cause is not None

    @property
    def cause(self) -> BaseException | None:
        """What `check` raises: `Preempted`, `Fenced`, or a background failure."""
        return self._cause

    @property
    def signalled(self) -> bool:
        """Whether a signal arrived, be it the first cause or a later one, and also where the main
        thread has taken no notice yet."""
        return self._signalled

    def seconds_left(self) -> float:
        """Of the grace period; all of it while nobody has asked to stop. Never negative."""
        if not self.requested:
            return self.grace_seconds
        return max(0.0, self.grace_seconds - (time.monotonic() - self._since))

    def seconds_ignored(self) -> float:
        """How long the main thread has gone on with work that ought to end at once. 0 where it
        stops at a boundary of its own, or is on its way out."""
        if not self.requested or self._deferred or self._leaving:
            return 0.0
        return time.monotonic() - max(self._since, self._undeferred_at)

    def request(self, cause: BaseException) -> None:
        """Ask for a stop from any thread; takes effect at the next `check`."""
        with self._lock:
            if self._cause is None:
                self._since = self._since if self._clock_runs else time.monotonic()
                self._cause = cause
        self._requested.set()

    def preempt(self, number: int) -> None:
        """A signal has arrived. Twice is as good as once: its handler may run long after it."""
        with self._lock:
            self._signalled = True
            if not self._clock_runs:
                self._clock_runs = True
                self._since = time.monotonic()
            self.request(Preempted(f"received {signal.Signals(number).name}"))

    def check(self) -> None:
        """Raise the cause, if anyone has asked to stop."""
        if self._cause is not None:
            self._raised = True
            raise self._cause

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than until anyone asks to stop; then raises the cause."""
        self._requested.wait(seconds)
        self.check()

    def told_apart(self) -> AbstractContextManager[None]:
        """Inside, an error that was raised because of the stop is its cause."""
        return told_apart(lambda reason: reason is self._cause)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While inside, a signal only sets the flag. Main thread only; nests."""
        self._deferred += 1
        try:
            yield
        finally:
            self._undeferred_at = time.monotonic()
            self._deferred -= 1

    def leaving(self) -> None:
        """The work has ended; what is left is to save and to say why."""
        self._leaving = True

    @property
    def is_leaving(self) -> bool:
        """Whether the end is decided, or being recorded."""
        return self._leaving

    def settle(self) -> None:
        """How the process ends is decided: from now on a signal only sets the flag."""
        self._leaving = True
        self._deferred += 1

    def install(self) -> None:
        """Handle SIGTERM and SIGINT, and `WAKE`, from now on. Main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(WAKE, self._on_wake)

    def uninstall(self) -> None:
        for number in (*SIGNALS, WAKE):
            signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        first, self._handled = not self._handled, True
        self.preempt(number)
        # A background failure that nobody has looked at yet can't wait any longer either.
        if first:
            self._raise_unless_deferred()

    def _on_wake(self, _number: int, _frame: FrameType | None) -> None:
        self._raise_unless_deferred()

    def _raise_unless_deferred(self) -> None:
        if not self._deferred and not self._raised:
            self.check()
