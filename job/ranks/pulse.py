"""A life sign of every rank, and who listens: a lost rank ends all, in bounded time.

The collectives of training don't do: NCCL waits for minutes, and Python's signal handlers don't run
meanwhile. So two threads do it. One speaks with the store: it shows that this rank lives, and reads
the others' life signs and the announced end. The other one judges, since a dead network lets the
first wait in the kernel.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from job.lifecycle import WAKE, StopToken
from job.ranks.ends import End, PeerLost

_log = logging.getLogger(__name__)

BEAT_SECONDS: Final = 0.5
_LEAVING_SECONDS: Final = 10.0
"""From the interrupt until the process is ended from here: a collective may never return."""

_ASKED: Final = " asked to stop"

END: Final = "end"
TRAINED: Final = "trained"
SEEN: Final = "seen"


class Pulse:
    """Begins at once. `store` is a connection of its own: others wait while one asks."""

    def __init__(
        self,
        store: Any,
        rank: int,
        watched: Sequence[int],
        stop: StopToken,
        leave: Callable[[BaseException], NoReturn],
        timeout_seconds: float,
    ) -> None:
        self.end: End | None = None
        """That another rank has announced."""
        self.cause: BaseException | None = None
        """Of the interruption: the announced end, or a rank that is lost."""
        self.interrupted = threading.Event()
        self._store = store
        self._rank = rank
        self._stop = stop
        self._leave = leave
        self._timeout = timeout_seconds
        self._main = threading.main_thread().ident or 0
        self._ended = threading.Event()
        self._answered = time.monotonic()
        self._seen = {other: ("", time.monotonic()) for other in watched}
        for run in (self._speak, self._judge):
            threading.Thread(target=run, name=f"rank{run.__name__}", daemon=True).start()

    @property
    def others_asked(self) -> bool:
        """Whether one of the watched was asked to stop, and waits for the next boundary."""
        return any(sign.endswith(_ASKED) for sign, _ in list(self._seen.values()))

    def release(self) -> None:
        """From now on the others may go."""
        self._seen = {}

    def stop(self) -> None:
        self._ended.set()

    def _speak(self) -> None:
        beats = 0
        while not self._ended.wait(BEAT_SECONDS):
            beats += 1
            try:
                asked = _ASKED if self._stop.requested else ""
                self._store.set(f"alive/{self._rank}", f"{beats}{asked}")
                self._listen()
            except RuntimeError as error:  # torch's DistError is one
                if not self._ended.is_set() and self.end is None:
                    self._interrupt(PeerLost(f"rank 0 can't be reached: {_first_line(error)}"))
                return
            self._answered = time.monotonic()

    def _listen(self) -> None:
        if self.end is None and self._store.check([END]):
            end = End.load(self._store.get(END))
            if end.rank != self._rank:
                self.end = end
                self._store.add(SEEN, 1)
                if end.code:
                    self._interrupt(end.as_cause())
        for other, (before, _) in list(self._seen.items()):
            key = f"alive/{other}"
            sign = self._store.get(key).decode() if self._store.check([key]) else ""
            if sign != before and other in self._seen:
                self._seen[other] = (sign, time.monotonic())

    def _judge(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            now = time.monotonic()
            silent = [
                r for r, (_, since) in list(self._seen.items()) if now - since > self._timeout
            ]
            if now - self._answered > self._timeout:
                self._interrupt(PeerLost(f"rank 0 has not answered for {self._timeout:.0f} s"))
            elif silent:
                ranks = ", ".join(str(rank) for rank in silent)
                self._interrupt(PeerLost(f"no sign of rank {ranks} for {self._timeout:.0f} s"))
            if self.interrupted.is_set():
                self._insist()
                return

    def _interrupt(self, cause: BaseException) -> None:
        """As a SIGTERM would: at once where there is nothing to save, else at the next boundary.
        But the pod stays, and there is time for a report and a last scrape."""
        if self.interrupted.is_set():
            return
        _log.error("this rank ends with the others: %s", cause)
        self._stop.request(cause)
        self.cause = cause
        self.interrupted.set()
        if not self._stop.is_leaving:
            signal.pthread_kill(self._main, WAKE)

    def _insist(self) -> None:
        deadline = time.monotonic() + _LEAVING_SECONDS
        while time.monotonic() < deadline:
            if self._stop.is_leaving or self._ended.wait(0.1):
                return
        self._leave(self._stop.cause or PeerLost("could not end in time"))


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
