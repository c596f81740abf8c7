"""One attempt at a run, as a process of its own: what it does, and what it was told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from job.errors import Fenced, JobError, Stopped
from job.ledger import RECORD_KEY, Ledger, Progress, RunRecord
from job.lifecycle import StopToken
from job.storage import Storage
from tests.ledger.interleaved import Abandoned, Lock, Schedule
from tests.ledger.model_observer import Broken, Observer
from tests.ledger.model_store import Connection, MemoryStore


@dataclass(eq=False)
class Operation:
    """What a thread of the process does."""

    name: str
    hopeless: bool
    """Somebody else owned the run already when it began, and it can't succeed without a swap."""
    told: Callable[[], None]
    """Called by the test when it has succeeded."""
    done: bool = False
    error: BaseException | None = None


class Process:
    """Everything but `begin` and what it starts is for the test's own thread."""

    def __init__(self, name: str, store: MemoryStore, observer: Observer) -> None:
        self.name = name
        self.observer = observer
        self.schedule = Schedule()
        self.stop = StopToken()
        self.ended = False
        self.operations: list[Operation] = []
        self._ledger: Ledger | None = None
        self._conditional = store.conditional
        self._replaced = False
        self._wrongs: list[str] = []
        self.storage: Storage = Connection(
            store,
            self.schedule,
            asked=self._asked,
            told=self._told,
            changed=partial(observer.changed, name),
        )

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    @property
    def ready(self) -> bool:
        """It has claimed the run, and its main thread has nothing to do."""
        return self._ledger is not None and not self.ended and not self.busy("main")

    def busy(self, name: str) -> bool:
        return any(operation.name == name for operation in self.operations)

    # -- what it does -----------------------------------------------------------------------

    def start(self) -> None:
        self.begin("main", self.claim, self._check_owner)

    def claim(self) -> None:
        ledger = Ledger.claim(
            self.storage, "run-1", version="1", conditional_writes=self._conditional
        )
        assert hasattr(ledger, "_lock")
        ledger._lock = Lock(self.schedule)  # type: ignore[assignment]
        self._ledger = ledger

    def note(self, mark: str) -> None:
        """A change of the record that nobody may lose."""
        told = partial(self.observer.acknowledged, self.name, mark)
        self.begin("main", lambda: self.ledger.update(partial(put, mark, self.name)), told)

    def confirm(self) -> None:
        self.begin("main", self.ledger.confirm)

    def close(self) -> None:
        self.begin("main", lambda: self.ledger.close("preempted", 75, "SIGTERM"), self.end)

    def heartbeat(self, step: int) -> None:
        """As `job.ledger.Heartbeat` does each time."""
        self.begin("heartbeat", partial(self._beat, step))

    def _beat(self, step: int) -> None:
        try:
            self.ledger.heartbeat(Progress(phase="training", step=step))
        except Fenced as fenced:
            self.stop.request(fenced)
            raise

    def begin(
        self,
        name: str,
        act: Callable[[], object],
        told: Callable[[], None] = lambda: None,
        *,
        swaps: bool = True,
    ) -> None:
        """Have a thread of its own do it."""
        replaced = self._ledger is not None and not self.observer.owns(self.name)
        operation = Operation(name, replaced and swaps, told)

        def run() -> None:
            try:
                act()
            except Abandoned:
                raise
            except BaseException as error:  # noqa: BLE001  judged by the test's thread
                operation.error = error
            operation.done = True

        self.operations.append(operation)
        self.schedule.thread(run, f"{self.name}-{name}").start()

    # -- what becomes of it -----------------------------------------------------------------

    def rest(self) -> None:
        """Until all threads stand still; then judge what has ended meanwhile."""
        self.schedule.rest()
        for operation in [operation for operation in self.operations if operation.done]:
            self.operations.remove(operation)
            self._judge(operation)
        if self._wrongs:
            raise Broken("; ".join(self._wrongs))
        if self.ended:
            self.die()

    def die(self) -> None:
        """As by SIGKILL, or at the end of the process."""
        self.ended = True
        self.schedule.kill()

    def end(self) -> None:
        """The main thread has returned."""
        self.ended = True

    def _judge(self, operation: Operation) -> None:
        error = operation.error
        if error is None:
            if operation.hopeless and self.observer.strict:
                raise Broken(f"{self.name} was replaced, and told that {operation.name} is done")
            operation.told()
        elif not isinstance(error, JobError | Stopped):
            raise Broken(f"{self.name} ended with {error!r}") from error
        else:
            self._check_fenced(error)
            if operation.name == "main" and self.fails(error):
                self.end()

    def _check_fenced(self, error: BaseException) -> None:
        strict = self.observer.strict
        if strict and isinstance(error, Fenced) and self.observer.owns(self.name):
            raise Broken(f"{self.name} owns the run, and was told: {error}")

    def fails(self, error: BaseException) -> bool:
        """Whether a main thread that gets this goes no further."""
        return self._ledger is None or isinstance(error, Stopped)

    def _check_owner(self) -> None:
        """Ours is the number that was written in our name."""
        record = self.observer.record
        assert record is not None
        if self.observer.strict and self.observer.owns(self.name):
            assert record.attempt == self.ledger.attempt

    def _asked(self, verb: str, key: str) -> None:
        if self._replaced and verb == "write" and key == RECORD_KEY:
            self._wrongs.append(f"{self.name} has seen that it was replaced, and writes {key}")

    def _told(self, key: str, data: bytes) -> None:
        if key == RECORD_KEY and self._ledger is not None:
            holder = RunRecord.model_validate_json(data).holder
            assert holder is not None
            self._replaced |= self.observer.tokens.get(holder.token) != self.name


def put(mark: str, who: str, record: RunRecord) -> None:
    record.results = record.results | {"marks": record.results.get("marks", {}) | {mark: who}}
