"""Meeting the others over a real store: who leaves before all are there gives its seat back."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from job.errors import Preempted, SettingsError
from job.lifecycle import StopToken
from job.ranks import PeerLost, Place
from job.ranks import group as grouping
from tests.e2e.jobs import free_port


def _place(rank: int, port: int) -> Place:
    return Place(rank, 3, 0, 1, rank, "127.0.0.1", port)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def store(port: int) -> Any:
    """Rank 0's, which has taken its own seat."""
    store = grouping._connect(_place(0, port), is_master=True)
    store.add("joined/0", 1)
    return store


def _met(port: int, stop: StopToken, seconds: float = 60, while_waiting: Any = bool) -> Any:
    """What rank 1 makes of it."""
    return grouping._met(_place(1, port), stop, time.monotonic() + seconds, while_waiting)


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
    first = grouping._connect(_place(0, port), is_master=True)
    grouping._agree_on_size(first, _place(0, port))
    other = replace(_place(2, port), size=4)
    with pytest.raises(SettingsError, match="rank 2 counts 4 processes, rank 0 counts 3"):
        grouping._met(other, StopToken(), time.monotonic() + 60, lambda: None)
    assert not first.check(["joined/2"])
    with pytest.raises(SettingsError, match="rank 2 counts 4 processes"):
        _met(port, StopToken())
    assert not first.check(["joined/1"])


def test_rank_0_waits_for_the_others_though_nobody_knows_its_name_yet(port: int) -> None:
    """A headless service's name comes with its pods."""
    owner = replace(_place(0, port), host="nobody.invalid")
    with pytest.raises(PeerLost, match="rank 1, 2 of 3 did not come"):
        grouping._met(owner, StopToken(), time.monotonic(), lambda: None)
