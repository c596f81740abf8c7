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
from torch._C._distributed_c10d import PrefixStore, TCPStore

from job.errors import JobError, Problem, SettingsError
from job.lifecycle import StopToken
from job.ranks.base import Message, Place
from job.ranks.ends import AllOver, End, PeerLost, end_of
from job.ranks.pulse import END, SEEN, TRAINED, Pulse
from job.ranks.released import release

_log = logging.getLogger(__name__)

_TRY_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_EXPLAIN_SECONDS: Final = 3.0
"""A broken connection is noticed before the reason is read."""
_SEEN_SECONDS: Final = 3.0
"""The store lives in rank 0: it stays until the others have read how it ended."""
_COLLECTIVE_TIMEOUT: Final = timedelta(minutes=60)
"""The pulse finds lost ranks; this only bounds what is alive and hangs."""
_DISAGREEMENT: Final = "disagreement"
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
            raise PeerLost(f"a connection between ranks broke: {_found(error)}") from error

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
    store, is_late = _met(place, stop, deadline, while_waiting)
    watched = range(1, place.size) if place.rank == 0 else (0,)
    with stop.deferred():  # the others count on us: we must not go without a word any more
        connection = _connect(place, is_master=False)
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


def _met(
    place: Place, stop: StopToken, deadline: float, while_waiting: Callable[[], None]
) -> tuple[Any, bool]:
    """The store, and whether all others are there and need us no more, which leaves our seat to who
    had it before."""
    while True:
        found = f"{place.host}:{place.port} does not answer"
        try:
            store = _connect(place, is_master=_hosts_store(place))
            _agree_on_size(store, place)
            with _seat(store, place, stop) as is_ours:
                if is_ours:
                    return _all_there(store, place, stop, deadline, while_waiting), False
            if store.check([TRAINED]):
                return store, True
            found = "the group has this rank already: it is an older attempt's, and ends"
        except RuntimeError as error:
            if _hosts_store(place):
                raise JobError(Problem("MASTER_PORT", f"rank 0 can't listen: {error}")) from error
        while_waiting()
        if time.monotonic() > deadline:
            raise _nobody(found)
        stop.pause(1.0)


def _agree_on_size(store: Any, place: Place) -> None:
    """Before a seat is taken: those who count fewer ranks would begin without the others."""
    own = f"rank {place.rank} counts {place.size} processes"
    first = store.compare_set("size", "", own).decode()
    if first.split(" counts ")[1] != own.split(" counts ")[1]:
        store.set(_DISAGREEMENT, f"{own}, {first}")
        raise _other_sizes(store)


def _other_sizes(store: Any) -> SettingsError:
    hint = (
        "give every node the same PET_NNODES and PET_NPROC_PER_NODE; `auto` counts the GPUs that "
        "each one sees"
    )
    return SettingsError(Problem("WORLD_SIZE", store.get(_DISAGREEMENT).decode(), hint))


@contextmanager
def _seat(store: Any, place: Place, stop: StopToken) -> Iterator[bool]:
    """Whether this rank's seat was free. Who leaves before all are there gives it back: else the
    others would go on without us, and our replacement would be turned away."""
    key, is_ours = f"joined/{place.rank}", False
    try:
        with stop.deferred():  # a stop between the two would leave the seat taken
            is_ours = int(store.add(key, 1)) == 1
        stop.check()
        yield is_ours
    except BaseException:
        if is_ours:
            with suppress(RuntimeError):  # the store is gone, and all seats with it
                store.delete_key(key)
        raise


def _all_there(
    store: Any,
    place: Place,
    stop: StopToken,
    deadline: float,
    while_waiting: Callable[[], None],
) -> Any:
    keys = [f"joined/{rank}" for rank in range(place.size)]
    while not store.check(keys):
        while_waiting()
        if store.check([_DISAGREEMENT]):
            if _hosts_store(place):
                stop.pause(_SEEN_SECONDS)
            raise _other_sizes(store)
        if time.monotonic() > deadline:
            missing = [str(n) for n, key in enumerate(keys) if not store.check([key])]
            raise _nobody(f"rank {', '.join(missing)} of {place.size} did not come")
        stop.pause(_POLL_SECONDS)
    return store


def _found(error: RuntimeError) -> str:
    """Of what gloo says the first sentence, without the line of its source."""
    line = str(error).strip().splitlines()[0]
    return re.sub(r"^\[\S+\] ", "", line).split(". ")[0]


def _nobody(found: str) -> PeerLost:
    hint = "are all nodes scheduled, and can they reach MASTER_ADDR? or raise it"
    return PeerLost(Problem("FORGE_RANK_JOIN_SECONDS", found, hint))


def _hosts_store(place: Place) -> bool:
    return place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _connect(place: Place, *, is_master: bool) -> Any:
    # Rank 0 is at home: the name may take a while until it can be looked up.
    store = TCPStore(
        "localhost" if _hosts_store(place) else place.host,
        place.port,
        None,
        is_master,
        timeout=timedelta(seconds=_TRY_SECONDS),
        wait_for_workers=False,
        multi_tenant=False,
    )
    # torchrun's agent keeps its own keys there, and one store over its restarts.
    return PrefixStore(f"forge-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
