"""The Prometheus metrics of a run, updated by events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from job.metrics.collector import PREFIX, BuildInfo, RunCollector
from job.metrics.labels import (
    DIRECTIONS,
    FAILURE_REASONS,
    OPERATIONS,
    OTHER,
    STAGES,
    among,
    failure_reason,
)
from job.metrics.state import Phase, RunState, Totals

_STEP_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)
_CHECKPOINT_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Every metric of a run, in a registry of its own. Thread-safe."""

    def __init__(self, build: BuildInfo, state: RunState | None = None) -> None:
        self.state = state or RunState()
        self.registry = CollectorRegistry()
        self._step_seconds = _histogram(
            "step_duration_seconds", "Time an optimizer step took.", (), _STEP_BUCKETS
        )
        self._checkpoint_seconds = _histogram(
            "checkpoint_duration_seconds",
            "Time a stage of a checkpoint took.",
            ("stage",),
            _CHECKPOINT_BUCKETS,
        )
        self._stall = _counter(
            "checkpoint_stall_seconds", "Time the training thread waited for checkpoints."
        )
        self._failures = _counter(
            "checkpoint_failures", "Tries to make a checkpoint durable that failed.", "reason"
        )
        self._rejected = _counter(
            "checkpoint_rejected", "Checkpoints passed over on resume as they were damaged."
        )
        self._s3_bytes = _counter("s3_bytes", "Bytes exchanged with storage.", "direction")
        self._s3_retries = _counter("s3_retries", "Requests to storage tried again.", "operation")
        self.bookkeeping = Bookkeeping(self._s3_bytes, self._s3_retries)
        # A series that first appears with its first event hides that event from increase().
        for instrument, values in (
            (self._checkpoint_seconds, STAGES),
            (self._failures, (*FAILURE_REASONS, OTHER)),
            (self._s3_bytes, DIRECTIONS),
            (self._s3_retries, (*OPERATIONS, OTHER)),
        ):
            for value in values:
                instrument.labels(value)
        instruments = (
            self._step_seconds,
            self._checkpoint_seconds,
            self._stall,
            self._failures,
            self._rejected,
            self._s3_bytes,
            self._s3_retries,
        )
        self._collector = RunCollector(build, self.state, instruments)
        self.registry.register(self._collector)

    def engine_chosen(self, name: str) -> None:
        """What `auto` came to, for `forge_build_info`."""
        self._collector.build = replace(self._collector.build, engine=name)

    def phase(self, phase: Phase) -> None:
        """The run is now in this phase."""
        self.state.enter(phase)

    def attempt(self, number: int, *, step: int = 0, max_steps: int = 0) -> None:
        """This attempt's number, and where the run's record says that it goes on."""
        self.state.attempt_began(number, step, max_steps)

    def ending(self, exit_code: int) -> None:
        """What the process is about to end with, for whoever scrapes it while it lingers."""
        self.state.exit_code = exit_code

    def conditional_writes(self, honoured: bool) -> None:
        """Whether the store keeps two attempts apart, as the probe found."""
        self.state.conditional_writes = honoured

    def grace_needed(self, seconds: float) -> None:
        """What a preemption takes, from SIGTERM to the end of the process."""
        self.state.grace_needed_seconds = seconds

    def limits(self, *, grace: float, save: float, stall: float) -> None:
        """The run's own settings, in seconds: an alert's rules serve runs of any settings."""
        self.state.limits = {"grace": grace, "save": save, "stall": stall}

    def planned(self, max_steps: int) -> None:
        """How many optimizer steps the run is going to take."""
        self.state.max_steps = max_steps

    def restore(
        self,
        step: int,
        totals: Totals,
        *,
        held_seconds: float = 0.0,
        resumes: int = 0,
        wasted_steps: int = 0,
        losses: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Go on from a checkpoint: `totals` as it carried them, the rest from the run's record.

        `held_seconds` is the time that earlier attempts held their pods; `resumes` includes this
        one, `losses` are the points of `loss_history`. Call it before the first step.
        """
        self.state.restore(
            step,
            totals,
            held_seconds=held_seconds,
            resumes=resumes,
            wasted_steps=wasted_steps,
            losses=losses,
        )

    def totals(self) -> Totals:
        """What a checkpoint has to carry for `restore`."""
        return self.state.totals

    def micro_step_done(self) -> None:
        """The run moved: `/healthz` counts from here."""
        self.state.beat()

    def step_done(
        self, step: int, seconds: float, *, tokens: int, supervised_tokens: int, samples: int
    ) -> None:
        """Optimizer step number `step` finished after `seconds`."""
        self.state.step_done(step, seconds, tokens, supervised_tokens, samples)
        self._step_seconds.observe(seconds)

    def logged(self, logs: Mapping[str, Any], step: int | None = None) -> None:
        """What transformers' trainer handed to `on_log`, after `step`."""
        self.state.log(logs, step)

    def checkpoint_taken(self, step: int, seconds: float) -> None:
        """Written to the work volume in `seconds`, not durable yet."""
        self.state.taken(step)
        self._checkpoint_seconds.labels("write").observe(seconds)

    def checkpoint_committed(
        self, step: int, size: int, *, upload_seconds: float, commit_seconds: float
    ) -> None:
        """Durable. `size` is in bytes."""
        self.state.committed(step, size)
        self._checkpoint_seconds.labels("upload").observe(upload_seconds)
        self._checkpoint_seconds.labels("commit").observe(commit_seconds)

    def checkpoint_stalled(self, seconds: float) -> None:
        """The training thread did nothing but wait for a checkpoint."""
        self._stall.inc(max(0.0, seconds))

    def checkpoint_failed(self, reason: str) -> None:
        """`reason` is an error's class or a word, never its message."""
        self._failures.labels(failure_reason(reason)).inc()
        self.state.moved()  # it is tried again, or ends the run

    def checkpoint_rejected(self) -> None:
        self._rejected.inc()

    def dataset(self, rows: Mapping[str, int]) -> None:
        """Rows by what became of them: `train`, `eval`, `rejected`, …"""
        self.state.labelled["dataset_rows"] = {(name,): count for name, count in rows.items()}

    def gpu_memory(self, sizes: Mapping[str, int]) -> None:
        """Bytes by kind: `allocated`, `reserved`, `peak_allocated`, …"""
        self.state.labelled["gpu_memory_bytes"] = {(kind,): size for kind, size in sizes.items()}

    def evaluated(self, evaluation: Mapping[str, Any]) -> None:
        """Held-out tool calls: `{"base": {measure: {"rate": …}}, "adapter": …}`."""
        self.state.labelled["tool_call_accuracy"] = {
            (model, measure): float(result["rate"])
            for model in ("base", "adapter")
            for measure, result in (evaluation.get(model) or {}).items()
        }

    def moved(self) -> None:
        """A sign of life outside of training: something arrived, or an outage is waited out."""
        self.state.moved()

    def sent(self, count: int) -> None:
        """So many bytes went to storage. This and the next two make it storage's observer."""
        self.bookkeeping.sent(count)
        self.state.moved()

    def received(self, count: int) -> None:
        """So many bytes came from storage."""
        self.bookkeeping.received(count)
        self.state.moved()

    def retried(self, operation: str) -> None:
        """A request to storage was sent again; `operation` is S3's name for it."""
        self.bookkeeping.retried(operation)
        self.state.moved()

    def progress(self) -> dict[str, Any]:
        """The run at a glance, as JSON data; the names are those of `run.json`'s progress."""
        return self.state.progress()


class Bookkeeping:
    """Storage's observer for the run's record: its bytes count, but a heartbeat, which goes on
    whatever else hangs, is no sign of life."""

    def __init__(self, s3_bytes: Counter, s3_retries: Counter) -> None:
        self._bytes = s3_bytes
        self._retries = s3_retries

    def sent(self, count: int) -> None:
        self._bytes.labels("sent").inc(count)

    def received(self, count: int) -> None:
        self._bytes.labels("received").inc(count)

    def retried(self, operation: str) -> None:
        self._retries.labels(among(OPERATIONS, operation)).inc()


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(PREFIX + name, text, labels, registry=None)


def _histogram(
    name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=None)
