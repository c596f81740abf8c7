"""Waiting out what storage gets over by itself.

botocore tries a request a few times within seconds. What fails after that is an outage, which is
waited out here for as long as the user allows, measured from its first failure; or a refusal,
which is tried a few times more: a role or a key may be renewed a moment later. Only what has worked
ends either: what was given up in between, for something newer, is one failure more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from job.errors import JobError, OutOfDisk, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_PAUSE_SECONDS = 30.0
_WAIT = wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS)


class Patience:
    """Calls something again until it works, or until patience ends: then its error is raised."""

    def __init__(
        self,
        seconds: float,
        *,
        tries: int = 1,
        on_failure: Callable[[JobError], None] = lambda _error: None,
        pause: Callable[[float], None] = time.sleep,
        counts_hanging: bool = False,
    ) -> None:
        """`seconds` is how long an outage may last, `tries` how often in a row anything but an
        outage may fail. `pause` waits; what it raises ends the call. `counts_hanging` measures an
        outage from the beginning of the call that failed first; one failure alone, perhaps at the
        end of a long transfer, is then tried again all the same."""
        self._seconds = seconds
        self._tries = tries
        self._on_failure = on_failure
        self._pause = pause
        self._counts_hanging = counts_hanging
        self._outage_since: float | None = None
        self._refused = 0
        self._failures = 0
        self._in_one = False

    @property
    def tried(self) -> bool:
        """Whether the last call failed, and nothing has worked since."""
        return self._failures > 0

    @contextmanager
    def as_one(self) -> Iterator[None]:
        """Several calls that are worth nothing by themselves: a part of them that has worked ends
        no outage, and makes up for no refusal."""
        self._in_one = True
        try:
            yield
        finally:
            self._in_one = False
        self._has_worked()

    def __call__(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Raises what `act` raised last. A bug, and a full disk, are not tried again."""
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=self._has_ended,
            wait=self._seconds_to_wait,
            before_sleep=self._before_retry,
            sleep=self._pause,
            reraise=True,
        )
        result = retrying(act, *args, **kwargs)
        if not self._in_one:
            self._has_worked()
        return result

    def _has_worked(self) -> None:
        self._outage_since, self._refused, self._failures = None, 0, 0

    def _has_ended(self, state: RetryCallState) -> bool:
        self._failures += 1
        if not isinstance(_error(state), Unavailable):
            self._refused += 1
            return self._refused >= self._tries
        # One outage is one outage, however many calls it spoils.
        began = state.start_time if self._counts_hanging else time.monotonic()
        self._outage_since = self._outage_since or began
        if time.monotonic() - self._outage_since < self._seconds:
            return False
        return self._failures > 1 or not (self._counts_hanging and self._seconds)

    def _seconds_to_wait(self, state: RetryCallState) -> float:
        state.attempt_number = self._failures  # of all calls, not of this one alone
        return _WAIT(state)

    def _before_retry(self, state: RetryCallState) -> None:
        error = _error(state)
        assert isinstance(error, JobError)
        self._on_failure(error)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, JobError) and not isinstance(error, OutOfDisk)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
