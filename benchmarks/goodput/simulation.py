"""A week of useful steps on nodes that are taken away: what each way to save makes of it.

Exact and event-driven: between two interruptions everything follows from where the attempt began.
Time is that which a pod is held, so that `goodput` is the share of paid time that went into steps
which count; the wait for a new node comes on top and is told apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.goodput.costs import Costs

WEEK_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Policy:
    """When a run saves, and what SIGTERM makes it do."""

    name: str
    costs: Costs
    interval: float
    """Seconds of training between two periodic checkpoints."""
    stops_at: str | None
    """`micro-batch` or `step`, or None: SIGTERM ends it at once."""
    waits: float = 0.0
    """Seconds that it trains on after SIGTERM before it looks for its boundary."""


@dataclass(frozen=True)
class Interruption:
    after: float
    """Seconds of held time since the last one."""
    hard: bool = False
    """SIGKILL without notice."""


@dataclass
class Outcome:
    """Seconds, by what they went into."""

    useful: float = 0.0
    repeated: float = 0.0
    """Trained, and lost."""
    checkpoints: float = 0.0
    shutdown: float = 0.0
    start: float = 0.0
    restore: float = 0.0
    interruptions: int = 0
    causes: tuple[str, ...] = field(
        default=("repeated", "checkpoints", "shutdown", "start", "restore"), repr=False
    )

    @property
    def held(self) -> float:
        lost: float = sum(getattr(self, cause) for cause in self.causes)
        return self.useful + lost

    @property
    def goodput(self) -> float:
        return self.useful / self.held


def young_daly(overhead: float, mean_between: float) -> float:
    """The interval of periodic checkpoints that loses least: sqrt(2 · cost · mean time between
    failures), Young, CACM 17(9), 1974; Daly, FGCS 22(3), 2006, has higher orders, negligible here.
    """
    return math.sqrt(2 * overhead * mean_between)


def simulate(
    policy: Policy,
    interruptions: Iterator[Interruption],
    grace: float,
    work: float = WEEK_SECONDS,
) -> Outcome:
    """Until `work` seconds of steps are done and durable."""
    outcome, durable = Outcome(), 0.0
    costs = policy.costs
    while durable < work:
        interruption = next(interruptions)
        outcome.start += min(interruption.after, costs.start)
        left = interruption.after - costs.start
        restore = costs.restore if durable else 0.0
        if left > 0:
            outcome.restore += min(left, restore)
            left -= restore
        if left <= 0:
            outcome.interruptions += 1
            continue
        durable = _train(policy, outcome, durable, left, interruption.hard, grace, work)
    outcome.useful = work
    return outcome


def _train(
    policy: Policy,
    outcome: Outcome,
    durable: float,
    time: float,
    hard: bool,
    grace: float,
    work: float,
) -> float:
    """One attempt that trains for `time` seconds before it is interrupted; what is durable then."""
    costs = policy.costs
    needed = _time_for(policy, work - durable)
    if needed <= time:
        outcome.checkpoints += needed - (work - durable)
        return work
    outcome.interruptions += 1
    done, paused = _progress(policy, time)
    outcome.checkpoints += paused
    saved = _periodic(policy, time)
    if not hard and policy.stops_at is not None:
        more, wait = _boundary(policy, done)
        reached = min(done + more, work - durable)
        takes = wait + costs.write + costs.upload + costs.commit
        if takes <= grace:
            whole = math.floor(reached / costs.step + 1e-9) * costs.step
            saved = max(saved, whole)
            outcome.repeated += reached - saved
            outcome.shutdown += takes - more + costs.exit
            return durable + saved
        outcome.shutdown += grace
    outcome.repeated += done - saved
    return durable + saved


def _progress(policy: Policy, time: float) -> tuple[float, float]:
    """Seconds of steps, and of checkpoints, in so many seconds of training."""
    cycle = policy.interval + policy.costs.overhead
    cycles, rest = divmod(time, cycle)
    done = cycles * policy.interval + min(rest, policy.interval)
    return done, time - done


def _time_for(policy: Policy, steps: float) -> float:
    return steps + math.floor(steps / policy.interval) * policy.costs.overhead


def _periodic(policy: Policy, time: float) -> float:
    """What the newest periodic checkpoint holds that was durable by then."""
    costs = policy.costs
    lag = costs.write + costs.upload + costs.commit
    cycle = policy.interval + costs.overhead
    count = math.floor((time - policy.interval - lag) / cycle) + 1
    return max(0, count) * policy.interval


def _boundary(policy: Policy, done: float) -> tuple[float, float]:
    """After SIGTERM: more seconds of steps until it stops, and how long that takes."""
    size = policy.costs.micro_batch if policy.stops_at == "micro-batch" else policy.costs.step
    at = done + policy.waits
    more = policy.waits + (math.ceil(at / size - 1e-9) * size - at)
    return more, more
