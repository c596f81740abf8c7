"""A profile of all that the job does, its background thread included."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import job.dataset.scan

_LINES: Final = 60


class _AtOnce:
    """An executor that does what it is given on the calling thread: a profile has only one."""

    def __init__(self, *_: Any) -> None:
        pass

    def shutdown(self, **_: bool) -> None:
        pass

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args))
        return future


@contextmanager
def profiled(out: Path | None) -> Iterator[None]:
    """Write to `out` what the time of the body goes into; nothing is changed without it.

    Tokenizing runs after reading here, not beside it, so the times add up to more than the job
    takes.
    """
    if out is None:
        yield
        return
    job.dataset.scan.ThreadPoolExecutor = _AtOnce  # type: ignore[assignment, attr-defined]
    profile = cProfile.Profile()
    profile.enable()
    yield
    profile.disable()
    with out.open("w", encoding="utf-8") as file:
        found = pstats.Stats(profile, stream=file).strip_dirs()
        for order in ("tottime", "cumulative"):
            found.sort_stats(order).print_stats(_LINES)
