"""The arithmetic of `benchmarks.overhead`: two runs' step ends in, ratios out. Seconds throughout.

A step's duration is the time from the step before it being logged to it being logged. Saving
comes after logging, so a checkpoint of step s lies in the duration of step s + 1, and its upload
goes on into step s + 2: these two are what "without checkpoints" leaves out, on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.machine import described
from benchmarks.stopwatch import Span

WARM_UP: Final = 2
"""First steps that are not compared: memory is allocated, caches fill."""


@dataclass(frozen=True)
class Record:
    """What one run wrote."""

    ends: dict[int, float]
    """Step → when it was logged."""
    losses: dict[int, float]
    threads: int
    """Of torch."""
    device: str
    spans: tuple[Span, ...] = ()
    """Of the job's own code; none in a bare run."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Record:
        return cls(
            ends={step: at for step, at, _ in values["steps"]},
            losses={step: loss for step, _, loss in values["steps"]},
            threads=values["threads"],
            device=values["device"],
            spans=tuple(Span(**span) for span in values.get("spans", ())),
        )

    def durations(self) -> dict[int, float]:
        """Of the steps that are compared."""
        return {
            step: end - self.ends[step - 1] for step, end in self.ends.items() if step > WARM_UP
        }

    def own(self) -> dict[int, float]:
        """Time in the job's own code on the training thread, by compared step."""
        spent = dict.fromkeys(self.durations(), 0.0)
        for span in self.spans:
            step = self._step_of(span)
            if step in spent and span.foreground and span.outermost:
                spent[step] += span.seconds
        return spent

    def compared(self) -> list[Span]:
        """The spans that ended within compared steps, of all threads."""
        steps = self.durations().keys()
        return [span for span in self.spans if self._step_of(span) in steps]

    def _step_of(self, span: Span) -> int | None:
        ended = span.began + span.seconds
        return next((step for step, end in sorted(self.ends.items()) if ended <= end), None)


@dataclass(frozen=True)
class Comparison:
    """A bare run and a run of the job beside it."""

    first: str
    """Which of the two ran first."""
    bare_step: float
    """Median."""
    job_step: float
    ratio: float
    """Of the medians."""
    ratio_without_checkpoints: float
    ratio_of_sums: float
    """All compared steps added up, so that what few steps bear counts in full."""
    own_step: float
    """Median time in the job's own code on the training thread."""
    own_share: float
    """Median over the steps of that time's share of the step."""
    own_share_of_sum: float
    same_losses: bool


def compare(first: str, bare: Record, job: Record, saved: Iterable[int]) -> Comparison:
    """Raises `ValueError` where the two don't have the same steps, or none to compare."""
    if bare.ends.keys() != job.ends.keys():
        raise ValueError(f"steps differ: {sorted(bare.ends)} and {sorted(job.ends)}")
    near = {step + after for step in saved for after in (1, 2)}
    quiet = [step for step in bare.durations() if step not in near]
    if not quiet:
        raise ValueError("no step is free of checkpoints: take more steps")
    a, b, own = bare.durations(), job.durations(), job.own()
    return Comparison(
        first=first,
        bare_step=median(a.values()),
        job_step=median(b.values()),
        ratio=median(b.values()) / median(a.values()),
        ratio_without_checkpoints=median(b[s] for s in quiet) / median(a[s] for s in quiet),
        ratio_of_sums=sum(b.values()) / sum(a.values()),
        own_step=median(own.values()),
        own_share=median(own[step] / b[step] for step in b),
        own_share_of_sum=sum(own.values()) / sum(b.values()),
        same_losses=bare.losses == job.losses,
    )


def summary(pairs: Sequence[Comparison]) -> dict[str, float]:
    """The median of each figure over the pairs, and how far apart the bare runs are."""
    names = (
        "bare_step",
        "job_step",
        "ratio",
        "ratio_without_checkpoints",
        "ratio_of_sums",
        "own_step",
        "own_share",
        "own_share_of_sum",
    )
    medians = {name: median(getattr(pair, name) for pair in pairs) for name in names}
    bare = [pair.bare_step for pair in pairs]
    return medians | {"bare_spread": max(bare) / min(bare) - 1}


def by_name(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Each timed function in all compared steps of all runs of the job, the costliest first."""
    steps = sum(len(record.durations()) for record in records)
    spans = [span for record in records for span in record.compared()]
    rows = {}
    for name, foreground in sorted({(span.name, span.foreground) for span in spans}):
        calls = [s for s in spans if s.name == name and s.foreground == foreground]
        rows[name if foreground else f"{name} (background)"] = {
            "foreground": foreground,
            "calls": len(calls),
            "ms_per_step": 1000 * sum(call.seconds for call in calls) / steps,
            "cpu_ms_per_step": 1000 * sum(call.cpu_seconds for call in calls) / steps,
        }
    return dict(sorted(rows.items(), key=lambda row: -row[1]["ms_per_step"]))


def markdown(result: Mapping[str, Any]) -> str:
    """The result of `benchmarks.overhead` for people."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    pairs = [
        _row(f"{number}, {pair['first']} first", pair)
        for number, pair in enumerate(result["pairs"], 1)
    ]
    own_code = [
        f"| `{name}` | {row['calls']} | {row['ms_per_step']:.3f} | {row['cpu_ms_per_step']:.3f} |"
        for name, row in result["own_code"].items()
    ]
    lines = [
        f"# Overhead of the job: {result['setup']['model']}, {result['machine']['device']}",
        "",
        _setting(result),
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *pairs,
        _row("**median**", result["median"]),
        "",
        _reading(result),
        "",
        "| Own code | Calls | ms a step | CPU ms a step |",
        "|---|---|---|---|",
        *own_code,
        "",
        versions + ".",
        "",
    ]
    return "\n".join(lines)


_COLUMNS: Final = (
    "Pair",
    "Bare, s",
    "Job, s",
    "Job / bare",
    "Without checkpoints",
    "Of sums",
    "Own code, ms",
    "Own share",
    "Own share of sum",
)


def _setting(result: Mapping[str, Any]) -> str:
    setup = result["setup"]
    return (
        f"{setup['steps']} steps of {setup['batch']} rows ({setup['mean_tokens']:.0f} tokens on "
        f"average), a checkpoint every {setup['save_steps']} steps, a scrape every "
        f"{setup['scrape_seconds']:g} s, a heartbeat every {setup['heartbeat_seconds']:g} s; "
        f"pairs of runs: {setup['pairs']}. "
        f"{described(result['machine'])}. {result['date']}."
    )


def _reading(result: Mapping[str, Any]) -> str:
    losses = "the same" if result["same_losses"] else "**not the same**"
    text = f"The losses of both sides are {losses}, bit by bit."
    if result["setup"]["pairs"] > 1:
        spread = result["median"]["bare_spread"]
        text += f" The bare runs alone differ by {spread:.1%}: a ratio nearer to 1 is noise."
    return text


def _row(name: str, figures: Mapping[str, Any]) -> str:
    cells = [name, f"{figures['bare_step']:.3f}", f"{figures['job_step']:.3f}"]
    ratios = ("ratio", "ratio_without_checkpoints", "ratio_of_sums")
    cells += [f"{figures[ratio]:.4f}" for ratio in ratios]
    cells += [f"{1000 * figures['own_step']:.2f}"]
    cells += [f"{figures[share]:.3%}" for share in ("own_share", "own_share_of_sum")]
    return f"| {' | '.join(cells)} |"
