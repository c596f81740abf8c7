"""One run under fire: attempt after attempt is struck by a seeded plan until one ends by itself."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.observer import Observer, result_of
from tests.chaos.proxy import Fault, Proxy, Request, nothing
from tests.zygote import Zygote

END_SECONDS = 180.0
"""Nothing here takes so long: an attempt that does hangs."""

_GONE = -signal.SIGKILL
_PREEMPTED = 75
_FENCED = 76


@dataclass
class Tally:
    """Over any number of scenarios."""

    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    attempts: int = 0
    runs: int = 0
    identical: int = 0
    lost_commits: int = 0
    false_completions: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def total_kills(self) -> int:
        return sum(self.kills.values())


@dataclass
class Scenario:
    """`strikes` blows, then the run is left alone until it ends."""

    zygote: Zygote
    proxy: Proxy
    observer: Observer
    env: dict[str, str]
    folder: Path
    tally: Tally
    chosen: random.Random
    span_seconds: float
    """About what an attempt takes that is left alone: blows fall within."""
    requests: int
    """About how many requests it makes."""

    def play(self, strikes: int, reference: dict[str, object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tally.runs += 1
        code: int | None = None
        for _ in range(strikes):
            code = self._struck()
            self._look()
            if code == 0:
                break
        if code != 0:
            code = self._left_alone()
        self._look()
        found = result_of(self.observer.storage) if code == 0 else {"code": code}
        if found == reference:
            self.tally.identical += 1
        else:
            self.observer.violations.append(f"another result: {found}, not {reference}")
        self.tally.violations += self.observer.violations
        self.tally.lost_commits += self.observer.lost_commits
        self.tally.false_completions += self.observer.false_completions

    # -- attempts ---------------------------------------------------------------------------

    def _start(self) -> int:
        self.tally.attempts += 1
        log = self.folder / f"attempt-{self.tally.attempts}.log"
        return self.zygote.start(os.environ | self.env, log)

    def _left_alone(self) -> int | None:
        self.proxy.rule = nothing
        return self._ended(self._start(), {0})

    def _ended(self, pid: int, allowed: set[int]) -> int | None:
        code = self.zygote.code(pid, END_SECONDS)
        if code is None:
            os.kill(pid, signal.SIGKILL)
            self.observer.violations.append("an attempt hangs")
        else:
            self.tally.codes[code] += 1
            if code not in allowed:
                self.observer.violations.append(f"an attempt ended with {code}, not {allowed}")
        return code

    def _struck(self) -> int | None:
        blow: Callable[[], int | None] = self.chosen.choice(
            [
                self._killed,
                self._killed_at_a_request,
                self._killed_after_an_answer,
                self._terminated,
                self._frozen,
            ]
        )
        try:
            return blow()
        finally:
            self.proxy.rule = nothing

    def _moment(self) -> float:
        """Early ones are likelier: an attempt that resumes has less to do than a whole run."""
        return self.chosen.uniform(0, 1) * self.chosen.uniform(0.3, 1) * self.span_seconds

    def _killed(self) -> int | None:
        pid = self._start()
        code = self.zygote.code(pid, self._moment())
        if code is None:
            self._strike(pid, signal.SIGKILL, "SIGKILL at a random moment")
        return self._ended(pid, {_GONE, 0})

    def _killed_at_a_request(self) -> int | None:
        return self._killed_by_the_proxy("SIGKILL before a request", before=True)

    def _killed_after_an_answer(self) -> int | None:
        return self._killed_by_the_proxy("SIGKILL before an answer is heard", before=False)

    def _killed_by_the_proxy(self, name: str, *, before: bool) -> int | None:
        first = len(self.proxy.requests)
        at = first + self.chosen.randint(1, max(1, round(self.requests * 0.7)))
        pids: list[int] = []

        def kill() -> None:
            while not pids:
                time.sleep(0.001)
            self._strike(pids[0], signal.SIGKILL, name)

        def rule(request: Request) -> Fault | None:
            if request.number != at:
                return None
            return Fault(before=kill) if before else Fault(after=kill)

        self.proxy.rule = rule
        pids.append(self._start())
        return self._ended(pids[0], {_GONE, 0})

    def _terminated(self) -> int | None:
        """A storm of SIGTERM, in some with SIGKILL before the job has done what it can."""
        pid = self._start()
        code = self.zygote.code(pid, self._moment())
        if code is not None:
            return self._ended(pid, {0})
        self._strike(pid, signal.SIGTERM, "SIGTERM, several times")
        for _ in range(self.chosen.randint(0, 3)):
            time.sleep(self.chosen.uniform(0, 0.1))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if self.chosen.random() < 0.5:
            code = self.zygote.code(pid, self.chosen.uniform(0, 0.6))
            if code is None:
                self._strike(pid, signal.SIGKILL, "SIGKILL after SIGTERM")
        return self._ended(pid, {_PREEMPTED, _GONE, 0})

    def _frozen(self) -> int | None:
        """Frozen, replaced, and woken up again while its successor works or has ended."""
        older = self._start()
        if self.zygote.code(older, self._moment()) is not None:
            return self._ended(older, {0})
        self._strike(older, signal.SIGSTOP, "SIGSTOP, replaced, SIGCONT")
        self._look()
        newer = self._start()
        code = self.zygote.code(newer, self._moment())
        with suppress(ProcessLookupError):
            os.kill(older, signal.SIGCONT)
        # Frozen before it had claimed the run, it is the newer one when it wakes up.
        ends = [self._ended(older, {_FENCED, 0}), self._ended(newer, {_FENCED, 0})]
        return 0 if 0 in ends else code

    def _strike(self, pid: int, number: signal.Signals, name: str) -> None:
        record = self.observer.look()
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            self.tally.kills[name] += 1
            self.tally.phases[record.progress.phase if record else "before the claim"] += 1

    def _look(self) -> None:
        self.observer.look()
