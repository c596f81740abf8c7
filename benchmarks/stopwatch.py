"""Times calls of the job's own methods from outside, so that the product carries no timers."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """One call. Times are those of `time.perf_counter`, in seconds."""

    name: str
    began: float
    seconds: float
    cpu_seconds: float
    """Of the calling thread alone."""
    foreground: bool
    """Whether the training thread made the call."""
    outermost: bool
    """Whether no other timed call was under way on its thread: only these add up."""


class Stopwatch:
    """Replaces functions by timed ones. Made on the training thread."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._training_thread = threading.get_ident()
        self._depth = threading.local()

    def time(self, owner: Any, name: str) -> None:
        """From now on note each call of `owner.name`, a method of a class or a module's function.

        Raises `AttributeError` where there is no such function: renamed code is not timed as 0.
        """
        label = f"{owner.__name__.rpartition('.')[2]}.{name}"
        setattr(owner, name, self._timed(label, getattr(owner, name)))

    def _timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            depth = getattr(self._depth, "value", 0)
            self._depth.value = depth + 1
            began, cpu_began = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                ended, cpu_ended = time.perf_counter(), time.thread_time()
                self._depth.value = depth
                self.spans.append(
                    Span(
                        label,
                        began,
                        ended - began,
                        cpu_ended - cpu_began,
                        threading.get_ident() == self._training_thread,
                        depth == 0,
                    )
                )

        return timed
