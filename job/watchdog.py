"""The end of a process that does not end by itself in time.

Python runs signal handlers between two steps of its main thread. A main thread that maps a large
library, or joins threads which wait for a dead connection, takes no such step for longer than a
grace period may be. The interpreter writes the number of a signal to a file descriptor at once,
though, whatever the main thread does: a thread here reads it, and watches.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from job.errors import Preempted
from job.lifecycle import SIGNALS, StopToken

_log = logging.getLogger(__name__)

IGNORED_SECONDS = 1.2
"""So long may work that has nothing to save go on after a signal."""

LAST_SECONDS = 1.0
"""Of the grace period: then whatever is not saved is lost to the SIGKILL that follows."""

_LAST_WORDS_SECONDS = 0.4
_UNHURRIED_SECONDS = 10.0
"""The same, where no signal says that somebody wants the pod."""

_TICK_SECONDS = 0.05

Leave = Callable[[BaseException], NoReturn]


class Watch:
    """Ends the process where a stop is not obeyed. Main thread only to begin and to end.

    `last_words` is called first, for at most 0.4 s, or 10 s without a signal: whoever has something
    to say sets it.
    """

    def __init__(self, stop: StopToken, leave: Leave) -> None:
        self._stop = stop
        self._leave = leave
        self._main = threading.main_thread().ident
        self.last_words: Callable[[BaseException], None] = lambda _cause: None
        self._to_others: Callable[[BaseException], None] = lambda _cause: None
        self.progress: Callable[[], dict[str, Any]] = dict
        """How far the run is, for the termination message; nothing before it has begun."""
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._writable, False)

    def begin(self) -> None:
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        threading.Thread(target=self._run, name="overdue", daemon=True).start()

    def end(self) -> None:
        """The process is about to end by itself."""
        signal.set_wakeup_fd(-1)
        os.close(self._writable)

    def before_leaving(self, say: Callable[[BaseException], None]) -> None:
        """What is said beside `last_words`, at the same time: either may wait for an answer."""
        self._to_others = say

    def leave(self, cause: BaseException) -> NoReturn:
        """End the process now, after the last words."""
        self._log_where()
        seconds = _LAST_WORDS_SECONDS if self._stop.signalled else _UNHURRIED_SECONDS
        until = time.monotonic() + seconds
        talks = [
            threading.Thread(target=say, args=(cause,), daemon=True)
            for say in (self._to_others, self.last_words)
        ]
        for talk in talks:
            talk.start()
        for talk in talks:
            talk.join(max(0.0, until - time.monotonic()))
        self._leave(cause)

    def _run(self) -> None:
        number = self._received()
        if number is None:
            return
        self._stop.preempt(number)  # its handler may not run for long
        while not self._is_overdue():
            time.sleep(_TICK_SECONDS)
        self.leave(self._stop.cause or Preempted())

    def _received(self) -> int | None:
        """The first of our signals; None at the end."""
        while byte := os.read(self._readable, 1):
            if byte[0] in SIGNALS:
                return byte[0]
        return None

    def _is_overdue(self) -> bool:
        last = min(LAST_SECONDS, self._stop.grace_seconds / 4)
        return self._stop.seconds_ignored() > IGNORED_SECONDS or self._stop.seconds_left() <= last

    def _log_where(self) -> None:
        frame = sys._current_frames().get(self._main or 0)  # noqa: SLF001  the documented way
        where = traceback.extract_stack(frame)[-1] if frame else None
        place = f"{where.filename}:{where.lineno}, in {where.name}" if where else "unknown"
        _log.error("the stop is overdue, the process ends now; it was at %s", place)
