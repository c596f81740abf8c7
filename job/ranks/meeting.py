"""Meeting the others at the store that rank 0 hosts: each takes its seat, until all are there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from torch._C._distributed_c10d import PrefixStore, TCPStore

from job.errors import JobError, Problem, SettingsError
from job.lifecycle import StopToken
from job.ranks.base import Place
from job.ranks.ends import PeerLost
from job.ranks.pulse import TRAINED

_TRY_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.1
_READ_SECONDS: Final = 3.0
"""The store lives in rank 0: it stays until the others have read why they don't meet."""
_DISAGREEMENT: Final = "disagreement"


def meet(
    place: Place, stop: StopToken, deadline: float, while_waiting: Callable[[], None]
) -> tuple[Any, bool]:
    """The store, and whether all others are there and need us no more, which leaves our seat to who
    had it before."""
    while True:
        found = f"{place.host}:{place.port} does not answer"
        try:
            store = connect(place, is_master=_hosts_store(place))
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
            raise _not_met(found)
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
                stop.pause(_READ_SECONDS)
            raise _other_sizes(store)
        if time.monotonic() > deadline:
            missing = [str(n) for n, key in enumerate(keys) if not store.check([key])]
            raise _not_met(f"rank {', '.join(missing)} of {place.size} did not come")
        stop.pause(_POLL_SECONDS)
    return store


def _not_met(found: str) -> PeerLost:
    hint = "are all nodes scheduled, and can they reach MASTER_ADDR? or raise it"
    return PeerLost(Problem("FORGE_RANK_JOIN_SECONDS", found, hint))


def _hosts_store(place: Place) -> bool:
    return place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def connect(place: Place, *, is_master: bool) -> Any:
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
