"""Meeting the others over a real store: who leaves before all are there gives its seat back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from job.errors import Preempted, SettingsError, Unavailable
from job.lifecycle import StopToken
from job.ranks import End, PeerLost, Place, meeting
from job.ranks import group as grouping
from job.ranks.pulse import Pulse
from tests.ports import own_port


def _place(rank: int, port: int) -> Place:
    return Place(rank, 3, 0, 1, rank, "127.0.0.1", port)


@pytest.fixture
def port() -> Iterator[int]:
    with own_port() as port:
        yield port


@pytest.fixture
def store(port: int) -> Any:
    """Rank 0's, which has taken its own seat."""
    store = meeting.connect(_place(0, port), is_master=True)
    store.add("joined/0", 1)
    return store


def _met(port: int, stop: StopToken, seconds: float = 60, while_waiting: Any = bool) -> Any:
    """What rank 1 makes of it."""
    return meeting.meet(_place(1, port), stop, time.monotonic() + seconds, while_waiting)


def test_one_that_is_preempted_while_it_waits_makes_room_for_its_replacement(
    store: Any, port: int
) -> None:
    stop = StopToken()
    with pytest.raises(Preempted):
        _met(port, stop, while_waiting=lambda: stop.request(Preempted("received SIGTERM")))
    store.add("joined/2", 1)
    assert not store.check(["joined/1"]), "the others would go on without rank 1"
    _met(port, StopToken(), seconds=5)
    assert store.check(["joined/1"])


def test_a_stop_while_the_seat_is_taken_gives_it_back(store: Any, port: int) -> None:
    """Also where it was the last one that the others waited for."""
    store.add("joined/2", 1)
    stop = StopToken()
    stop.request(Preempted("received SIGTERM"))
    with pytest.raises(Preempted):
        _met(port, stop)
    assert not store.check(["joined/1"])


def test_one_that_has_waited_in_vain_is_not_counted_on(store: Any, port: int) -> None:
    with pytest.raises(PeerLost, match="rank 2 of 3 did not come"):
        _met(port, StopToken(), seconds=0)
    assert not store.check(["joined/1"])


def test_a_seat_that_is_taken_stays_its_holders(store: Any, port: int) -> None:
    store.add("joined/1", 1)
    with pytest.raises(PeerLost, match="the group has this rank already"):
        _met(port, StopToken(), seconds=0)
    assert store.check(["joined/1"])


def test_nodes_that_count_otherwise_are_refused_and_take_no_seat(port: int) -> None:
    """Those who count fewer would begin without the others, and wait for them in vain."""
    first = meeting.connect(_place(0, port), is_master=True)
    meeting._agree_on_size(first, _place(0, port))
    other = replace(_place(2, port), size=4)
    with pytest.raises(SettingsError, match="rank 2 counts 4 processes, rank 0 counts 3"):
        meeting.meet(other, StopToken(), time.monotonic() + 60, lambda: None)
    assert not first.check(["joined/2"])
    with pytest.raises(SettingsError, match="rank 2 counts 4 processes"):
        _met(port, StopToken())
    assert not first.check(["joined/1"])


def test_rank_0_waits_for_the_others_though_nobody_knows_its_name_yet(port: int) -> None:
    """A headless service's name comes with its pods."""
    owner = replace(_place(0, port), host="nobody.invalid")
    with pytest.raises(PeerLost, match="rank 1, 2 of 3 did not come"):
        meeting.meet(owner, StopToken(), time.monotonic(), lambda: None)


def test_the_replacement_of_one_that_had_trained_waits_for_how_rank_0_ends(
    store: Any, port: int
) -> None:
    """Rank 0 evaluates, alone, for as long as it takes; the seat stays taken meanwhile."""
    store.add("joined/1", 1)
    store.set("trained", "")
    late = grouping.join(
        _place(1, port),
        StopToken(),
        lambda cause: pytest.fail(str(cause)),
        join_seconds=60,
        timeout_seconds=600,
    )
    try:
        assert not late.trains
        assert late.owners_end(0) is None
        late.announce(Preempted("received SIGTERM"))
        assert not store.check(["end"]), "it would end the evaluation"
        store.set("end", End(0, 0, "succeeded").dump())
        assert late.owners_end(60) == End(0, 0, "succeeded")
    finally:
        late.close()


class _Unseen:
    """A store whose third look finds that all have seen how rank 0 ends."""

    looks = 0

    def compare_set(self, key: str, _before: str, _after: str) -> None:
        assert key == "end"

    def add(self, key: str, _number: int) -> int:
        assert key == "seen"
        self.looks += 1
        return 2 if self.looks == 3 else 0


def test_a_failure_is_heard_also_where_its_report_took_longer_than_a_grace_period() -> None:
    """That of a preemption runs from its signal; here is none."""
    stop, unseen, pulse = StopToken(grace_seconds=0), _Unseen(), object()
    stop.request(Unavailable("down"))
    group = grouping.Group(_place(0, 1), unseen, cast("Pulse", pulse), stop)
    group.announce(Unavailable("down"))
    assert unseen.looks == 3


PREEMPTED = """
import os, signal
import torch.distributed as dist
from job import __main__ as main
from job.errors import Stopped
from job.lifecycle import StopToken
from job.ranks import joined, own_place
from job.watchdog import Watch

connect = dist.init_process_group

def connects(*args, **kwargs):
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return connect(*args, **kwargs)

dist.init_process_group = connects
stop = StopToken()
watch = Watch(stop, main._leave)
stop.install()
watch.begin()
try:
    with joined(own_place(os.environ), stop, watch, join_seconds=240, timeout_seconds=3600):
        pass
except Stopped as error:
    os._exit(error.exit_code)
"""


@pytest.mark.slow  # rank 0 is deep in C code, and has ten seconds to come out by itself
def test_a_preemption_while_the_group_is_formed_is_everybodys(port: int) -> None:
    """Not a lost rank, which is waited for and counted."""
    env = {**os.environ, "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        subprocess.Popen([sys.executable, "-c", PREEMPTED], env=env | {"RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(240) for process in both] == [75, 75]
    finally:
        for process in both:
            process.kill()
            process.wait()
