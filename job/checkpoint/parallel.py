"""Several transfers at once, ended together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from job.storage.cancellation import Cancellation

T = TypeVar("T")

_THREADS = 8


def in_parallel(
    tasks: Iterable[Callable[[Cancellation], T]], cancellation: Cancellation | None = None
) -> list[T]:
    """The results, in order. The first task that fails, or whatever is raised here meanwhile, ends
    the others, which nobody waits for: one of them may hang in a dead connection.

    Threads are started by the caller's, and run at its priority.
    """
    own = Cancellation()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="transfer")
    try:
        with (cancellation or own).telling(own.cancel):
            return [future.result() for future in [pool.submit(task, own) for task in tasks]]
    except BaseException:
        own.cancel()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
