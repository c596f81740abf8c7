"""Several transfers at once, ended together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
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
    ended: SimpleQueue[object] = SimpleQueue()
    try:
        with (cancellation or own).telling(own.cancel), own.telling(lambda: ended.put(None)):
            futures = [pool.submit(task, own) for task in tasks]
            for future in futures:
                future.add_done_callback(ended.put)
            for _ in futures:
                ended.get()
                own.check()
                _raise_first(futures)
            return [future.result() for future in futures]
    except BaseException:
        own.cancel()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _raise_first(futures: list[Future[T]]) -> None:
    for future in futures:
        if future.done() and (error := future.exception()) is not None:
            raise error
