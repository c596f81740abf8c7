"""Waiting out what storage gets over by itself.

botocore tries a request a few times within seconds. What fails after that is an outage, which is
waited out here for as long as the user allows, measured from its first failure; or a refusal,
which is tried a few times more: a role or a key may be renewed a moment later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from job.errors import JobError, OutOfDisk, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_PAUSE_SECONDS = 30.0


class Patience:
    """Calls something again until it works, or until patience ends: then its error is raised."""

    def __init__(
        self,
        seconds: float,
        *,
        tries: int = 1,
        on_failure: Callable[[JobError], None] = lambda _error: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`seconds` is how long an outage may last, `tries` how often in a row anything but an
        outage may fail. `pause` waits; what it raises ends the call."""
        self._seconds = seconds
        self._tries = tries
        self._on_failure = on_failure
        self._pause = pause
        self._outage_since: float | None = None
        self._refused = 0

    @property
    def tried(self) -> bool:
        """Whether the last call failed, and nothing has worked since."""
        return self._outage_since is not None or self._refused > 0

    def __call__(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises what `act` raised last. A bug, and a full disk, are not tried again."""
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=self._has_ended,
            wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS),
            before_sleep=self._tell,
            sleep=self._pause,
            reraise=True,
        )
        result = retrying(act, *args, **kwargs)
        self._outage_since, self._refused = None, 0
        return result

    def _has_ended(self, state: RetryCallState) -> bool:
        if isinstance(_error(state), Unavailable):
            # One outage is one outage, however many calls it spoils.
            self._outage_since = self._outage_since or time.monotonic()
            return time.monotonic() - self._outage_since >= self._seconds
        self._refused += 1
        return self._refused >= self._tries

    def _tell(self, state: RetryCallState) -> None:
        error = _error(state)
        assert isinstance(error, JobError)
        self._on_failure(error)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, JobError) and not isinstance(error, OutOfDisk)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
