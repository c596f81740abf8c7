"""The threads of a process, each let go on by hand: for tests that choose every interleaving.

A thread that calls storage, or waits for time to pass, is parked until the test picks it. What it
waits for inside its process (a lock, a condition, a queue, a pool) is built here anew, so that it
is known without any guess when all threads of a process stand still. No real time is involved, and
the same choices always give the same run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_TOO_LONG_SECONDS = 120
"""Then a thread waits for something that this module knows nothing of."""


class Abandoned(BaseException):
    """The process has died: this is how its threads end, wherever they stand."""


class Clock:
    """In place of the module `time`: it moves when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, _seconds: float) -> None:
        """Whoever sleeps makes a request afterwards, and is parked there."""

    def now(self) -> str:
        return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)).isoformat()


CLOCK = Clock()
_own = threading.local()


@dataclass(eq=False)
class Standing:
    """A thread that stands still until somebody lets it go on."""

    go_on: threading.Event = field(default_factory=threading.Event)


@dataclass(eq=False)
class Call:
    """A thread that is parked: at a request to storage, or (verb `timer`) waiting for time."""

    verb: str
    key: str
    effect: Callable[[], Any]
    """Makes the request happen. Called by the test, as often as the request arrives."""
    changes: bool = False
    """Whether it is more than a look."""
    expected: tuple[type[BaseException], ...] = ()
    """What the effect may raise as an answer."""
    give_up: Callable[[], None] = lambda: None
    """Raises in the caller's thread what it gets when it doesn't wait for the answer any more."""
    standing: Standing = field(default_factory=Standing)
    turn: int = 0
    took_effect: bool = False
    result: Any = None
    error: BaseException | None = None

    def take_effect(self) -> None:
        CLOCK.seconds += 1
        self.took_effect, self.result, self.error = True, None, None
        try:
            self.result = self.effect()
        except self.expected as error:
            self.error = error


class Schedule:
    """All threads of one process."""

    def __init__(self) -> None:
        self.monitor = threading.Condition(threading.RLock())
        self.parked: list[Call] = []
        self.dead = False
        self._running = 0
        self._turn = 0
        self._standing: list[Standing] = []
        self._threads: list[threading.Thread] = []

    # -- for the test -----------------------------------------------------------------------

    def rest(self) -> None:
        """Wait until every thread stands still or has ended."""
        with self.monitor:
            if not self.monitor.wait_for(lambda: self._running == 0, _TOO_LONG_SECONDS):
                raise AssertionError("a thread waits for what the schedule does not know of")
            self._turn += 1
            self.parked.sort(
                key=lambda call: (call.verb == "timer", call.turn, call.verb, call.key)
            )

    def answer(self, call: Call) -> None:
        """Let its caller have what the call has come to."""
        with self.monitor:
            self.parked.remove(call)
            self.let_go(call.standing)

    def kill(self) -> None:
        """No thread makes another step."""
        with self.monitor:
            self.dead = True
            self.parked.clear()
            for standing in list(self._standing):
                self.let_go(standing)
        for thread in self._threads:
            thread.join(_TOO_LONG_SECONDS)
            assert not thread.is_alive(), f"{thread.name} did not end"

    # -- for its threads --------------------------------------------------------------------

    def thread(self, act: Callable[[], object], name: str) -> threading.Thread:
        """One of ours, to be started by the caller."""
        thread = _Thread(self, act, name)
        self._threads.append(thread)
        return thread

    def request(self, call: Call) -> Any:
        """Park until the test has the call answered."""
        with self.monitor:
            call.turn = self._turn
            self.parked.append(call)
            self.stand(call.standing)
        self.wait(call.standing)
        call.give_up()
        if call.error is not None:
            raise call.error
        return call.result

    def stand(self, standing: Standing) -> None:
        """With the monitor held: from now on this thread counts as standing still."""
        if self.dead:
            raise Abandoned
        self._standing.append(standing)
        self.ran(-1)

    def wait(self, standing: Standing) -> None:
        standing.go_on.wait()
        if self.dead:
            raise Abandoned

    def let_go(self, standing: Standing) -> None:
        with self.monitor:
            if standing in self._standing:
                self._standing.remove(standing)
                self.ran(1)
                standing.go_on.set()

    def ran(self, threads: int) -> None:
        with self.monitor:
            self._running += threads
            if not self._running:  # else the test would wake up to find that it has to wait
                self.monitor.notify_all()


class _Thread(threading.Thread):
    def __init__(self, schedule: Schedule, act: Callable[[], object], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._schedule = schedule
        self._act = act

    def start(self) -> None:
        self._schedule.ran(1)
        super().start()

    def run(self) -> None:
        _own.schedule = self._schedule
        try:
            self._act()
        except Abandoned:
            return
        finally:
            self._schedule.ran(-1)


class Lock:
    """A re-entrant lock; who waits for it gets it in the order of coming."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._owner: int | None = None
        self._depth = 0
        self._queue: list[tuple[int, Standing]] = []

    def __enter__(self) -> None:
        me, standing = threading.get_ident(), Standing()
        with self._schedule.monitor:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return
            self._schedule.stand(standing)
            self._queue.append((me, standing))
        self._schedule.wait(standing)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._schedule.monitor:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._queue:
                self._owner, standing = self._queue.pop(0)
                self._depth = 1
                self._schedule.let_go(standing)


class Condition(threading.Condition):
    """One whose waits for time end when the test says so."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule
        self._asleep: list[Standing] = []

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        while not (result := predicate()):
            timer = Call("timer", "", lambda: None)
            with self._schedule.monitor:
                self._schedule.stand(timer.standing)
                self._asleep.append(timer.standing)
                if timeout is not None:
                    self._schedule.parked.append(timer)
            self.release()
            try:
                self._schedule.wait(timer.standing)
            finally:
                self.acquire()
                self._forget(timer)
            if timer.took_effect:
                return predicate()
        return result

    def _forget(self, timer: Call) -> None:
        with self._schedule.monitor:
            self._asleep = [other for other in self._asleep if other is not timer.standing]
            self._schedule.parked[:] = [call for call in self._schedule.parked if call is not timer]

    def notify_all(self) -> None:
        for standing in list(self._asleep):
            self._schedule.let_go(standing)


class Queue:
    """In place of `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._schedule: Schedule = _own.schedule
        self._items: list[object] = []
        self._reader: Standing | None = None

    def put(self, item: object) -> None:
        with self._schedule.monitor:
            self._items.append(item)
            if self._reader is not None:
                self._schedule.let_go(self._reader)
                self._reader = None

    def get(self) -> object:
        standing = Standing()
        with self._schedule.monitor:
            if self._items:
                return self._items.pop(0)
            self._schedule.stand(standing)
            self._reader = standing
        self._schedule.wait(standing)
        return self._items.pop(0)


class Pool:
    """In place of `ThreadPoolExecutor`: as many threads as tasks."""

    def __init__(self, _threads: int, thread_name_prefix: str = "") -> None:
        self._schedule: Schedule = _own.schedule
        self._name = thread_name_prefix

    def submit(self, act: Callable[..., T], *args: object) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = act(*args)
            except BaseException as error:  # noqa: BLE001  a future carries whatever it was
                future.set_exception(error)
            else:
                future.set_result(result)

        self._schedule.thread(run, self._name).start()
        return future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Every task has its thread already, and nobody waits for it."""
        assert not wait
        assert cancel_futures


def take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the job's code use the clock, the queue and the pool of this module."""
    checkpoint = (f"checkpoint.{module}" for module in ("uploader", "supersede", "commit"))
    for module in (*checkpoint, "storage.patience", "lifecycle"):
        monkeypatch.setattr(f"job.{module}.time", CLOCK)
    monkeypatch.setattr("job.ledger.ledger.now", CLOCK.now)
    monkeypatch.setattr("job.checkpoint.parallel.SimpleQueue", Queue)
    monkeypatch.setattr("job.checkpoint.parallel.ThreadPoolExecutor", Pool)
