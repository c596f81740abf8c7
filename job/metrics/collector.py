"""The metrics that are worked out when scraped: one consistent picture of `RunState`.

A gauge is absent until it has a value: a loss of 0 before the first step would be a lie that
alerts believe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from job.metrics.state import PHASES, RunState

PREFIX: Final = "forge_"

_GAUGES: Final[tuple[tuple[str, str, Callable[[RunState], float | None]], ...]] = (
    ("attempt", "Number of the attempt that runs, from 1.", lambda s: s.attempt),
    (
        "global_step",
        "Optimizer steps finished, over all attempts.",
        # Before the record is read, 0 would be a step back in the eyes of whoever watches the run.
        lambda s: None if s.attempt is None else s.step,
    ),
    (
        "exit_code",
        "Code that this attempt ends with; absent while it goes on.",
        lambda s: s.exit_code,
    ),
    ("max_steps", "Optimizer steps the run is planned to take.", lambda s: s.max_steps),
    ("epoch", "Passes over the training data, with fraction.", lambda s: s.logged.get("epoch")),
    ("train_loss", "Training loss, as last logged.", lambda s: s.logged.get("loss")),
    ("eval_loss", "Validation loss, as last evaluated.", lambda s: s.logged.get("eval_loss")),
    (
        "learning_rate",
        "Learning rate of the last logged step.",
        lambda s: s.logged.get("learning_rate"),
    ),
    (
        "grad_norm",
        "Norm of the gradient before clipping, as last logged.",
        lambda s: s.logged.get("grad_norm"),
    ),
    (
        "supervised_token_ratio",
        "Share of the trained tokens that carry a loss.",
        RunState.supervised_token_ratio,
    ),
    (
        "last_step_timestamp_seconds",
        "Unix time at which the last optimizer step finished.",
        lambda s: s.last_step_at,
    ),
    (
        "sign_of_life_timestamp_seconds",
        "Unix time of the last sign of life, from which /healthz counts.",
        RunState.alive_at,
    ),
    (
        "eta_seconds",
        "Time until the last step at the pace of this attempt.",
        RunState.eta_seconds,
    ),
    (
        "checkpoint_last_step",
        "Step of the newest durable checkpoint.",
        lambda s: s.checkpoint_step,
    ),
    (
        "checkpoint_last_success_timestamp_seconds",
        "Unix time at which this attempt last made a checkpoint durable.",
        lambda s: s.checkpoint_at,
    ),
    ("checkpoint_bytes", "Size of the last durable checkpoint.", lambda s: s.checkpoint_bytes),
    (
        "at_risk_seconds",
        "Training time that a kill now would lose.",
        RunState.at_risk_seconds,
    ),
    (
        "conditional_writes",
        "1 where the store honours conditional writes; 0: two attempts at once may lose updates.",
        lambda s: s.conditional_writes,
    ),
    (
        "grace_needed_seconds",
        "Time a preemption takes from SIGTERM to the end of the process, as measured.",
        lambda s: s.grace_needed_seconds,
    ),
    (
        "grace_seconds",
        "FORGE_GRACE_SECONDS: the grace period that the pod has.",
        lambda s: s.limits.get("grace"),
    ),
    (
        "save_seconds",
        "FORGE_SAVE_SECONDS: a checkpoint is made at least so often.",
        lambda s: s.limits.get("save"),
    ),
    (
        "stall_seconds",
        "FORGE_STALL_SECONDS: a run without progress for so long is not alive.",
        lambda s: s.limits.get("stall"),
    ),
    (
        "goodput_ratio",
        "Share of the time held by all attempts that went into steps which still count.",
        RunState.goodput_ratio,
    ),
    (
        "safe_to_preempt",
        "1 when a kill now would lose no finished step.",
        lambda s: float(s.safe_to_preempt),
    ),
)

_COUNTERS: Final[tuple[tuple[str, str, Callable[[RunState], float]], ...]] = (
    ("tokens", "Tokens trained on, padding left out.", lambda s: s.totals.tokens),
    (
        "supervised_tokens",
        "Tokens trained on that carry a loss.",
        lambda s: s.totals.supervised_tokens,
    ),
    ("samples", "Conversations trained on.", lambda s: s.totals.samples),
    ("resumes", "Attempts that trained on from a checkpoint.", lambda s: s.resumes),
    (
        "wasted_steps",
        "Steps trained twice, as far as an attempt could tell before its end or its kill.",
        lambda s: s.wasted_steps,
    ),
)

_LABELLED: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("gpu_memory_bytes", "GPU memory by kind.", ("kind",)),
    ("dataset_rows", "Rows of the data set by what became of them.", ("result",)),
    (
        "tool_call_accuracy",
        "Share of held-out tool calls that meet a measure, by model.",
        ("model", "measure"),
    ),
)


@dataclass(frozen=True)
class BuildInfo:
    """What runs: constant labels of `forge_build_info`."""

    version: str
    engine: str
    profile: str
    model: str


class RunCollector(Collector):
    """Reads the state, and the instruments that keep values of their own."""

    def __init__(
        self, build: BuildInfo, state: RunState, instruments: tuple[Collector, ...]
    ) -> None:
        self.build = build
        """Replaced once `auto` has chosen an engine."""
        self._state = state
        self._instruments = instruments

    def collect(self) -> Iterator[Metric]:
        build = self.build
        yield _labelled(
            "build_info",
            "What runs: constant labels of the value 1.",
            tuple(vars(build)),
            {tuple(vars(build).values()): 1.0},
        )
        phase = self._state.phase  # read once: exactly one phase is 1 in every scrape
        yield _labelled(
            "run_phase",
            "1 for the phase the run is in.",
            ("phase",),
            {(name,): float(name == phase) for name in PHASES},
        )
        for name, text, gauge in _GAUGES:
            if (value := gauge(self._state)) is not None:
                yield GaugeMetricFamily(PREFIX + name, text, value=value)
        for name, text, counter in _COUNTERS if self._state.restored else ():
            yield CounterMetricFamily(PREFIX + name, text, value=counter(self._state))
        for name, text, labels in _LABELLED:
            yield _labelled(name, text, labels, self._state.labelled.get(name, {}))
        for instrument in self._instruments:
            yield from _without_created(instrument)


def _labelled(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def _without_created(instrument: Collector) -> Iterator[Metric]:
    """The library adds a gauge `…_created` to each series, which nobody asked for."""
    for family in instrument.collect():
        family.samples = [s for s in family.samples if not s.name.endswith("_created")]
        yield family
