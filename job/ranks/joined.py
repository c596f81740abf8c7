"""The group as a context: whoever leaves it says how it ended, and learns how the others did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from job.lifecycle import StopToken
from job.ranks.base import Message, Place, Ranks
from job.ranks.ends import End
from job.watchdog import Watch


class JoinedRanks(Ranks, Protocol):
    """What a run with several ranks has beyond `Ranks`."""

    @property
    def place(self) -> Place: ...

    @property
    def others_asked(self) -> bool: ...

    @property
    def trains(self) -> bool: ...

    def tell(self, topic: str, message: Message) -> None: ...

    def hear(self, topic: str) -> Message: ...

    def trained(self) -> None: ...

    def owners_end(self, seconds: float | None = None) -> End | None: ...


@contextmanager
def joined(
    place: Place,
    stop: StopToken,
    watch: Watch,
    *,
    join_seconds: float,
    timeout_seconds: float,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[JoinedRanks]:
    """Meet the others; imports torch. Raises as `job.ranks.group.join` and `Group.form` do."""
    from job.ranks.group import join

    group = join(
        place,
        stop,
        watch.leave,
        join_seconds=join_seconds,
        timeout_seconds=timeout_seconds,
        while_waiting=while_waiting,
    )
    watch.before_leaving(group.announce)
    try:
        if group.trains:
            group.form()
        yield group
    except BaseException as error:
        stop.settle()
        group.announce(error)
        raise
    else:
        stop.settle()
        group.announce(None)
    finally:
        group.close()
