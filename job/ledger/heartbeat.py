"""Progress into `run.json` every so often; finds out early that a newer attempt took over."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from types import TracebackType

from job.errors import Fenced, JobError
from job.ledger.ledger import Ledger
from job.ledger.record import Progress
from job.lifecycle import StopToken

_log = logging.getLogger(__name__)


class Heartbeat:
    """A background thread while inside `with`. It never ends the run but for fencing."""

    def __init__(
        self, ledger: Ledger, progress: Callable[[], Progress], stop: StopToken, seconds: float
    ) -> None:
        self._ledger = ledger
        self._progress = progress
        self._stop = stop
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        # A beat that hangs in a dead network must not hold up the exit: the thread is a daemon.
        self._thread.join(timeout=2)

    def _run(self) -> None:
        # Runs that start together (a sweep, a node pool that comes back) must not beat together.
        pause = random.uniform(0, self._seconds)  # noqa: S311
        while not self._ended.wait(pause):
            pause = self._seconds
            try:
                self._ledger.heartbeat(self._progress())
            except Fenced as fenced:
                self._stop.request(fenced)
                return
            except JobError as error:
                _log.warning("heartbeat failed, training goes on: %s", error)
            except Exception:  # noqa: BLE001
                # The record's progress is a convenience; the next commit reports real trouble.
                _log.exception("heartbeat failed, training goes on")
