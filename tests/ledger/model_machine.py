"""The rules by which hypothesis interleaves processes: a storage call at a time, with answers that
get lost, requests that arrive late or twice, and processes that die anywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from job.errors import AccessDenied, Unavailable
from tests.ledger.interleaved import CLOCK, Call
from tests.ledger.model_observer import Observer
from tests.ledger.model_process import Process
from tests.ledger.model_store import MemoryStore

_EXAMPLES = os.environ.get("FORGE_MODEL_EXAMPLES")  # read now: a fixture takes it away
_KEEP = 2
_AT_ONCE = 2
_IN_ALL = 6

_ARRIVES = ("answer on its way", "answer lost", "arrives twice")
_DIES = ("dies", "dies and arrives later")
_TROUBLES = ("none", *_ARRIVES, "arrives later", "request lost", "refused", *_DIES)
"""What one call may meet with."""

Act = Callable[[Any, int], None]


def model_settings(examples: int, steps: int) -> settings:
    """The same examples each time, fit for CI; `FORGE_MODEL_EXAMPLES` asks for so many new ones."""
    return settings(
        max_examples=int(_EXAMPLES or examples),
        stateful_step_count=steps,
        derandomize=_EXAMPLES is None,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


@dataclass(frozen=True)
class Late:
    """A request on its way of which nobody awaits an answer any more."""

    call: Call
    by: str

    def arrive(self) -> None:
        """As a call of its own: the first one's answer may still be on its way."""
        call = self.call
        Call(call.verb, call.key, call.effect, expected=call.expected).take_effect()


class Interleaving(RuleBasedStateMachine):
    """Subclasses say what processes do."""

    conditional = True
    strict = True

    def __init__(self) -> None:
        super().__init__()
        CLOCK.seconds = 0.0
        self.store = MemoryStore(conditional=self.conditional)
        self.observer = Observer(self.store, _KEEP, strict=self.strict)
        self.processes: list[Process] = []
        self.late: list[Late] = []
        self.marks = 0

    def new_process(self, name: str) -> Process:
        return Process(name, self.store, self.observer)

    # -- what there is ----------------------------------------------------------------------

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.ended]

    def settle(self) -> None:
        for process in self.alive:
            process.rest()

    # -- processes --------------------------------------------------------------------------

    @initialize(count=st.integers(0, 30))
    def first(self, count: int) -> None:
        self.go_on(self.launch(), count)

    def launch(self) -> Process:
        process = self.new_process(f"process {len(self.processes) + 1}")
        self.processes.append(process)
        process.start()
        self.settle()
        return process

    @property
    def acts(self) -> list[Act]:
        """What an idle process can do; some of it more often."""
        return [self.note, self.heartbeat]

    def note(self, process: Process, _amount: int) -> None:
        self.marks += 1
        process.note(f"mark {self.marks}")

    def heartbeat(self, process: Process, amount: int) -> None:
        if not process.busy("heartbeat"):
            process.heartbeat(amount)

    def outside(self, what: int) -> None:
        """Something that no process does by itself."""
        if what % 2 and self.late:
            late = self.late.pop(what % len(self.late))
            late.arrive()
        elif len(self.alive) < _AT_ONCE and len(self.processes) < _IN_ALL:
            self.launch()

    # -- their calls ------------------------------------------------------------------------

    # One rule: hypothesis would leave out half of several in each example.
    @rule(
        which=st.integers(0, _AT_ONCE),
        what=st.integers(0, 29),
        amount=st.integers(0, 3),
        count=st.integers(0, 12),
        trouble=st.sampled_from(_TROUBLES),
        seconds=st.sampled_from([0, 0, 0, 30]),
    )
    def step(
        self, which: int, what: int, amount: int, count: int, trouble: str, seconds: int
    ) -> None:
        """A process does something, if it is idle, and makes some calls without any trouble; then
        time passes, and one more call meets with trouble. Or something happens outside."""
        if which >= len(self.alive):
            self.outside(what)
            return
        process = self.alive[which]
        if process.ready:
            self.acts[what % len(self.acts)](process, amount)
        self.go_on(process, count)
        CLOCK.seconds += seconds
        requests = [call for call in process.schedule.parked if call.verb != "timer"]
        if requests and not process.ended:
            self.meet(process, requests[what % len(requests)], trouble)

    def go_on(self, process: Process, count: int) -> None:
        self.settle()
        for _ in range(count):
            if process.schedule.parked and not process.ended:
                self.pass_through(process, process.schedule.parked[0])

    def pass_through(self, process: Process, call: Call) -> None:
        if not call.took_effect:
            call.take_effect()
        process.schedule.answer(call)
        self.settle()

    def meet(self, process: Process, call: Call, trouble: str) -> None:
        if trouble == "none":
            return
        if trouble in _DIES:
            self.die(process, arrive=trouble != "dies")
            return
        if trouble in _ARRIVES and not call.took_effect:
            call.take_effect()
        if trouble == "answer on its way":
            return
        if trouble == "arrives twice":
            call.take_effect()  # the client has sent it again, and gets the second answer
        else:
            self.spoil(process, call, trouble)
        process.schedule.answer(call)
        self.settle()

    def spoil(self, process: Process, call: Call, trouble: str) -> None:
        """Its caller gets an error in place of the answer."""
        if trouble == "arrives later" and call.changes and not call.took_effect:
            self.late.append(Late(call, process.name))
        refused = trouble == "refused" and call.changes
        fault = AccessDenied if refused else Unavailable
        call.error = fault(f"{call.verb} {call.key}: {trouble}")

    def die(self, process: Process, *, arrive: bool) -> None:
        """With `arrive`, what it has just sent is still on its way."""
        self.late += [
            Late(call, process.name)
            for call in process.schedule.parked
            if arrive and call.changes and not call.took_effect
        ]
        process.die()

    # -- the end ----------------------------------------------------------------------------

    def teardown(self) -> None:
        for process in self.alive:
            process.die()
        if sys.exc_info()[0] is None:  # nothing was found wrong so far
            try:
                self.at_rest()
            finally:
                for process in self.alive:
                    process.die()

    def at_rest(self) -> None:
        """All are dead; one more comes, and nothing disturbs it."""
        process = self.launch()
        self.let_run(process)
        assert process.ready, "it can't claim the run"
        process.note("the last mark")
        self.let_run(process)
        assert "the last mark" in self.observer.marks

    def let_run(self, process: Process) -> None:
        """Without trouble, until it has nothing more to do."""
        self.settle()
        while process.schedule.parked and not process.ended:
            self.pass_through(process, process.schedule.parked[0])
