"""The group of all ranks: a store for messages, gloo for what is agreed on, NCCL for gradients."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final, NoReturn

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore

from job.errors import Problem, SettingsError
from job.lifecycle import StopToken
from job.ranks.base import Message, Place
from job.ranks.ends import AllOver, End, PeerLost, end_of
from job.ranks.meeting import connect, meet
from job.ranks.pulse import END, SEEN, TRAINED, Pulse
from job.ranks.released import release

_log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.1
_EXPLAIN_SECONDS: Final = 3.0
"""A broken connection is noticed before the reason is read."""
_SEEN_SECONDS: Final = 3.0
"""The store lives in rank 0: it stays until the others have read how it ended."""
_COLLECTIVE_TIMEOUT: Final = timedelta(minutes=60)
"""The pulse finds lost ranks; this only bounds what is alive and hangs."""
_BROKEN: Final = re.compile(r"gloo|nccl|peer|socket|connection|timed out", re.IGNORECASE)

Leave = Callable[[BaseException], NoReturn]


class Group:
    """Keeps `job.ranks.base.Ranks`."""

    def __init__(
        self, place: Place, store: Any, pulse: Pulse, stop: StopToken, *, is_late: bool = False
    ) -> None:
        """`is_late` where all others were there before, and have trained to the end."""
        self.place = place
        self.rank = place.rank
        self.size = place.size
        self._store = store
        self._pulse = pulse
        self._stop = stop
        self._trains = not is_late
        self._answers = 0
        self._control: Any = None

    def form(self) -> None:
        """Connect all ranks. Whoever ends before it is done has to `announce` that: the others
        wait here for as long as it takes.

        Raises `PeerLost`, or what another rank ended with.
        """
        self._stop.check()
        try:
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore("group", self._store),
                rank=self.rank,
                world_size=self.size,
                timeout=_COLLECTIVE_TIMEOUT,
            )
            self._control = dist.new_group(backend="gloo", timeout=_COLLECTIVE_TIMEOUT)
        except RuntimeError as error:
            self._pulse.interrupted.wait(_EXPLAIN_SECONDS)
            raise self._stop.cause or PeerLost(f"no group of ranks: {error}") from error
        _log.info("rank %d of %d, on node %d", self.rank, self.size, self.place.node)

    # -- agreement --------------------------------------------------------------------------

    def all_gather(self, *values: int) -> list[tuple[int, ...]]:
        own = torch.tensor(values, dtype=torch.int64)
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own, group=self._control)
        return [tuple(row.tolist()) for row in every]

    def gather(self, data: bytes) -> list[bytes]:
        every: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(data, every, dst=0, group=self._control)
        return every or []

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not _BROKEN.search(f"{type(error).__name__} {error}"):
                raise
            self._pulse.interrupted.wait(_EXPLAIN_SECONDS)
            if self._stop.cause is not None:
                raise self._stop.cause from error
            raise PeerLost(f"a connection between ranks broke: {_first_sentence(error)}") from error

    def broadcast(self, value: int, waiting: Callable[[], None]) -> int:
        """Over the store: in a collective the others would wait with a time-out, and deaf."""
        self._answers += 1
        topic = f"answer-{self._answers}"
        if self.rank == 0:
            self.tell(topic, {"value": value})
            return value
        while not self._store.check([topic]):
            if self._pulse.interrupted.wait(_POLL_SECONDS):
                self._stop.check()
            waiting()
        return int(json.loads(self._store.get(topic))["value"])

    @property
    def others_asked(self) -> bool:
        """At rank 0: whether another one was asked to stop, as its life signs say."""
        return self._pulse.others_asked

    # -- messages ---------------------------------------------------------------------------

    def tell(self, topic: str, message: Message) -> None:
        self._store.set(topic, json.dumps(message))

    def hear(self, topic: str) -> Message:
        """Waits for it; a signal, or the end of another rank, ends the wait: `AllOver` where rank 0
        has ended well."""
        while not self._has(topic):
            self._stop.pause(_POLL_SECONDS)
        found: Message = json.loads(self._store.get(topic))
        return found

    def _has(self, topic: str) -> bool:
        end = self._pulse.end
        if end is not None and end.code == 0:  # with rank 0 the store goes
            raise AllOver
        try:
            return bool(self._store.check([topic]))
        except RuntimeError:
            return False  # the pulse finds that out, too, and says why

    # -- the end ----------------------------------------------------------------------------

    @property
    def trains(self) -> bool:
        """Whether the others need this rank, and it them."""
        return self._trains

    def trained(self) -> None:
        """Training is over: the owner goes on alone, and whoever waits for it may go."""
        self._trains = False
        if self.rank == 0:
            with suppress(RuntimeError):  # the store is an agent's, and gone: the pulse says so
                self._store.set(TRAINED, "")
            self._pulse.release()
            release()
        dist.destroy_process_group()

    def owners_end(self, seconds: float | None = None) -> End | None:
        """Wait for what rank 0 announces; None when time runs out. Raises `PeerLost`."""
        until = None if seconds is None else time.monotonic() + seconds
        while self._pulse.end is None:
            if isinstance(self._pulse.cause, PeerLost):
                raise self._pulse.cause
            if until is not None and time.monotonic() > until:
                return None
            time.sleep(_POLL_SECONDS)
        return self._pulse.end

    def announce(self, error: BaseException | None) -> None:
        """Tell the others how this rank ends, unless another one has ended before. Never raises.

        One that only waits for the owner goes without a word: the owner needs nobody any more.
        """
        end = end_of(self.rank, error)
        if self.rank and (not self._trains or end.code == 0):
            return
        try:
            self._store.compare_set(END, "", end.dump())
        except RuntimeError:
            return  # the store is gone, and with it everybody
        if self.rank == 0:
            self._wait_until_seen()

    def close(self) -> None:
        self._pulse.stop()

    def _wait_until_seen(self) -> None:
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        seconds = _SEEN_SECONDS
        if self._stop.signalled:  # else there is no grace period to be kept to
            seconds = min(seconds, self._stop.seconds_left() / 2)
        until = time.monotonic() + seconds
        try:
            while self._store.add(SEEN, 0) < self.size - 1 and time.monotonic() < until:
                time.sleep(_POLL_SECONDS / 2)
        except RuntimeError:
            return


def join(
    place: Place,
    stop: StopToken,
    leave: Leave,
    *,
    join_seconds: float,
    timeout_seconds: float,
    while_waiting: Callable[[], None] = lambda: None,
) -> Group:
    """Meet the other ranks, to `form` a group, unless it has trained to the end without us.
    `while_waiting` is called now and then, and may raise.

    Raises `PeerLost` where not all are there within `join_seconds`, and `SettingsError` where there
    are fewer GPUs than processes.
    """
    deadline = time.monotonic() + join_seconds
    _take_card(place)
    store, is_late = meet(place, stop, deadline, while_waiting)
    watched = range(1, place.size) if place.rank == 0 else (0,)
    with stop.deferred():  # the others count on us: we must not go without a word any more
        connection = connect(place, is_master=False)
        pulse = Pulse(connection, place.rank, watched, stop, leave, timeout_seconds)
        return Group(place, store, pulse, stop, is_late=is_late)


def _take_card(place: Place) -> None:
    if not torch.cuda.is_available():
        return
    cards = torch.cuda.device_count()
    if place.local_rank >= cards:
        found = f"asks for {place.local_size} processes, and {cards} GPU(s) can be seen here"
        hint = "a process needs a GPU of its own: ask for more of them, or for fewer processes"
        raise SettingsError(Problem("PET_NPROC_PER_NODE", found, hint))
    torch.cuda.set_device(place.local_rank)


def _first_sentence(error: RuntimeError) -> str:
    """Of what gloo says the first sentence, without the line of its source."""
    line = str(error).strip().splitlines()[0]
    return re.sub(r"^\[\S+\] ", "", line).split(". ")[0]
