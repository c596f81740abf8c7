"""The facts of a run that its metrics, health and progress are worked out from. Thread-safe.

The training thread tells what happened, which costs a few assignments; ratios and times are
worked out when somebody asks.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from job.metrics.history import LossHistory

Phase = Literal[
    "starting",
    "data",
    "model",
    "training",
    "evaluation",
    "publishing",
    "finished",
    "preempted",
    "failed",
]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_ENDED: Final = ("finished", "preempted", "failed")

_ETA_STEPS: Final = 64
"""The ETA follows the last so many steps: long enough to hold an evaluation and a checkpoint."""


@dataclass(frozen=True)
class Totals:
    """What counts over all attempts of a run. It travels in each checkpoint."""

    tokens: int = 0
    supervised_tokens: int = 0
    samples: int = 0
    productive_seconds: float = 0.0
    """Time spent in steps that still count; a step that was lost and repeated counts once."""


class RunState:
    """`clock` is monotonic seconds, `wall` Unix seconds; tests bring their own."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = threading.RLock()
        self._started = clock()
        self._held_before = 0.0
        self._last_beat = self._started
        self._durable_until = self._started
        self._taken: dict[int, float] = {}
        self._step_ends: deque[float] = deque(maxlen=_ETA_STEPS + 1)
        self.phase: Phase = "starting"
        self.attempt: int | None = None
        self.exit_code: int | None = None
        self.step = 0
        self.durable_step = 0
        self.max_steps: int | None = None
        self.totals = Totals()
        self.resumes = 0
        self.wasted_steps = 0
        self.restored = False
        """Whether the totals are the whole run's. Before, they are not shown: a counter that
        starts at 0 and jumps to what earlier attempts did is taken for a burst by rate()."""
        self.last_step_at: float | None = None
        self.checkpoint_step: int | None = None
        self.checkpoint_at: float | None = None
        self.checkpoint_bytes: int | None = None
        self.conditional_writes: bool | None = None
        self.grace_needed_seconds: float | None = None
        self.limits: dict[str, float] = {}
        """Seconds that alerts hold the run to: its settings `grace`, `save` and `stall`."""
        self.losses = LossHistory()
        self.logged: dict[str, float] = {}
        """The newest value of each thing that the trainer logs (`loss`, `eval_loss`, …)."""
        self.labelled: dict[str, dict[tuple[str, ...], float]] = {}
        """Gauges with labels: metric → label values → value; replaced as a whole."""

    def enter(self, phase: Phase) -> None:
        with self._lock:
            if phase == "training" and not self._step_ends:
                self._durable_until = self._clock()
                self._step_ends.append(self._clock())
            self.phase = phase
            self._last_beat = self._clock()

    def beat(self) -> None:
        """Something moved: a micro-batch, an evaluation batch."""
        self._last_beat = self._clock()

    def moved(self) -> None:
        """Bytes went from or to storage: a sign of life, but in training, where uploads go on
        in the background while a step may hang."""
        if self.phase != "training":
            self.beat()

    def seconds_since_beat(self) -> float:
        return self._clock() - self._last_beat

    def alive_at(self) -> float:
        """When that was, for whoever has another clock."""
        return self._wall() - self.seconds_since_beat()

    def attempt_began(self, number: int, step: int, max_steps: int) -> None:
        """Until training begins the run is where its record left it, not at step 0."""
        with self._lock:
            self.attempt = number
            self.step = self.durable_step = step
            self.checkpoint_step = step or None
            self.max_steps = max_steps or None

    def restore(
        self,
        step: int,
        totals: Totals,
        *,
        held_seconds: float,
        resumes: int,
        wasted_steps: int,
        losses: Sequence[tuple[int, float]] = (),
    ) -> None:
        with self._lock:
            self.losses.restore(losses, step)
            self.restored = True
            self.step = self.durable_step = step
            self.checkpoint_step = step or None  # a run at step 0 has none
            self.totals = totals
            self._held_before = held_seconds
            self.resumes = resumes
            self.wasted_steps = wasted_steps

    def step_done(
        self, step: int, seconds: float, tokens: int, supervised_tokens: int, samples: int
    ) -> None:
        with self._lock:
            self.step = step
            self._last_beat = self._clock()
            self._step_ends.append(self._last_beat)
            self.last_step_at = self._wall()
            before = self.totals
            self.totals = Totals(
                before.tokens + tokens,
                before.supervised_tokens + supervised_tokens,
                before.samples + samples,
                before.productive_seconds + seconds,
            )

    def log(self, logs: Mapping[str, Any], step: int | None = None) -> None:
        with self._lock:
            if step is not None and "loss" in logs:
                self.losses.add(step, float(logs["loss"]))
            for name, value in logs.items():
                if isinstance(value, (int, float)) or hasattr(value, "item"):
                    self.logged[name] = float(value)

    def taken(self, step: int) -> None:
        """The state after `step` is in a checkpoint, which is not durable yet."""
        with self._lock:
            self._taken[step] = self._clock()

    def committed(self, step: int, size: int) -> None:
        """The checkpoint is durable: what came before it was taken can't be lost any more."""
        with self._lock:
            taken_at = self._taken.get(step, self._clock())
            self._durable_until = max(self._durable_until, taken_at)
            # Older ones were superseded on their way and will never be committed.
            self._taken = {s: at for s, at in self._taken.items() if s > step}
            self.durable_step = max(self.durable_step, step)
            self.checkpoint_step = step
            self.checkpoint_at = self._wall()
            self.checkpoint_bytes = size

    @property
    def safe_to_preempt(self) -> bool:
        """Whether a kill now would lose no finished step."""
        return self.phase in _ENDED or self.step <= self.durable_step

    def at_risk_seconds(self) -> float:
        """Training time that a kill would lose: since the newest durable state was taken."""
        with self._lock:
            exposed = self.phase == "training" or self.step > self.durable_step
            if not exposed or self.phase in _ENDED:
                return 0.0
            return max(0.0, self._clock() - self._durable_until)

    def eta_seconds(self) -> float | None:
        """Until the last step, from the pace of this attempt, pauses included."""
        with self._lock:
            if self.max_steps is None:
                return None
            remaining = max(0, self.max_steps - self.step)
            steps = len(self._step_ends) - 1
            if remaining == 0 or self.phase == "finished":
                return 0.0
            if steps < 1:
                return None
            return remaining * (self._step_ends[-1] - self._step_ends[0]) / steps

    def goodput_ratio(self) -> float | None:
        """Share of the time that all attempts held their pods which went into steps that count."""
        with self._lock:
            if not self.restored:
                return None
            held = self._held_before + self._clock() - self._started
            return min(1.0, self.totals.productive_seconds / held) if held > 0 else 0.0

    def supervised_token_ratio(self) -> float | None:
        totals = self.totals
        return totals.supervised_tokens / totals.tokens if totals.tokens else None

    def loss_history(self) -> list[tuple[int, float]]:
        """Step and training loss, a few of them over the whole run."""
        with self._lock:
            return self.losses.points()

    def progress(self) -> dict[str, Any]:
        """For `/progress`, the heartbeat and the termination message: JSON data without NaN."""
        with self._lock:
            age = (
                None if self.checkpoint_at is None else max(0.0, self._wall() - self.checkpoint_at)
            )
            values: dict[str, Any] = {
                "phase": self.phase,
                "attempt": self.attempt,
                "step": self.step,
                "max_steps": self.max_steps or 0,
                "epoch": self.logged.get("epoch", 0.0),
                "loss": self.logged.get("loss"),
                "eval_loss": self.logged.get("eval_loss"),
                "eta_seconds": _rounded(self.eta_seconds()),
                "checkpoint_step": self.checkpoint_step,
                "checkpoint_age_seconds": _rounded(age),
                "at_risk_seconds": _rounded(self.at_risk_seconds()),
                "safe_to_preempt": self.safe_to_preempt,
                "updated_at": _iso(self._wall()),
            }
        return {name: _finite(value) for name, value in values.items()}


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
