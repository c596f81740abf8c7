"""The few figures of each result that say whether its target is met."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.goodput.goal import AT_RATE, GOAL, judged


@dataclass(frozen=True)
class Headline:
    """A figure and its target."""

    what: str
    value: float
    target: float
    at_least: bool = False
    """The target is a least value, not a most."""

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target


def table(results: Path) -> str:
    """Markdown: one line a figure, of each result of `results` that is there."""
    lines = ["| what | measured | target | | machine | raw |", "| --- |" + " --- |" * 5]
    for name, read in READERS.items():
        path = results / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        for line in read(result):
            bound = "at least" if line.at_least else "at most"
            verdict = "met" if line.met else "**missed**"
            lines.append(
                f"| {line.what} | {line.value:.3g} | {bound} {line.target:g} | {verdict} "
                f"| {_machine(result)} | [{name}](results/{name}.json), {result['date']} |"
            )
    return "\n".join(lines) + "\n"


def _machine(result: Mapping[str, Any]) -> str:
    """Results of before a benchmark wrote its machine lack some of it, or all."""
    found = result.get("machine", result)
    cores = f"{found['cores']} cores" if "cores" in found else ""
    if "cpu" in found:
        return f"{found['cpu']}, {cores}"
    return f"{cores}, CPU not recorded" if cores else "not recorded"


def _startup(result: Mapping[str, Any]) -> Iterator[Headline]:
    yield Headline("start to first step / bare TRL script", result["ratios"]["first"], 1.1)
    yield Headline("the same after a preemption / bare", result["ratios"]["second"], 0.6)


def _commands(result: Mapping[str, Any]) -> Iterator[Headline]:
    for name in ("validate", "status"):
        yield Headline(f"`{name}`, seconds", result["commands"][name]["median"], 0.5)
    for name, ratio in result["ratios"].items():
        yield Headline(f"`{name}` / a script in a few lines", ratio, 1.0)


def _overhead(result: Mapping[str, Any]) -> Iterator[Headline]:
    yield Headline("the job's own work / step", result["median"]["own_share_of_sum"], 0.02)


def _short_steps(result: Mapping[str, Any]) -> Iterator[Headline]:
    what = "metrics and logging / a step of 100 ms, a scrape every"
    for seconds in (15.0, 1.0):  # the chart's PodMonitor, and a strict one
        share = metrics_share(result["own_code"], seconds)
        yield Headline(f"{what} {seconds:g} s", share, 0.005)


def metrics_share(own_code: Mapping[str, Mapping[str, Any]], scrape_seconds: float = 1.0) -> float:
    """Of a step of 100 ms: what is told at each step (processor time of the training thread), and
    the answers to a scrape every `scrape_seconds`."""
    told = ("JobCallback.on_log", "Monitor.stepped", "trainer.count")
    per_step = sum(own_code[name]["cpu_ms_per_step"] for name in told)
    steps = own_code["JobCallback.on_log"]["calls"]
    scrapes = own_code["MetricsServer._answer (background)"]
    per_scrape = scrapes["cpu_ms_per_step"] * steps / scrapes["calls"]
    return float((per_step + per_scrape * 0.1 / scrape_seconds) / 100)


def _throughput(result: Mapping[str, Any]) -> Iterator[Headline]:
    sides = list(result["step_seconds"].values())
    rate = sides[0] / sides[-1]
    yield Headline("tokens a second on a CPU / plain TRL script", rate, 1.5, at_least=True)


def _data(result: Mapping[str, Any]) -> Iterator[Headline]:
    for target in result["targets"]:
        yield Headline(target["what"], target["measured"], target["at_least"], at_least=True)


def _checkpoint(result: Mapping[str, Any]) -> Iterator[Headline]:
    for size, sides in result.get("cost", {}).items():
        ours, bare = sides["ours"]["cost"], sides["bare"]["cost"]
        yield Headline(f"a checkpoint's whole cost / bare save, {size} MB", ours / bare, 1.3)
        yield Headline(f"the same / rival, {size} MB", ours / sides["rival"]["cost"], 0.5)
    for size, sides in result.get("restore", {}).items():
        yield Headline(f"restore / raw download, {size} MB", sides["ours"] / sides["raw"], 1.2)


def _goodput(result: Mapping[str, Any]) -> Iterator[Headline]:
    for setting, sides in result["costs"].items():
        what = f"simulated goodput, {AT_RATE:g} interruption an hour, {setting}"
        if sides["ours"]["origin"] != "measured":
            what += f", costs {sides['ours']['origin']}"
        yield Headline(what, judged(result["rows"], setting)["goodput"], GOAL, at_least=True)


def _growth(result: Mapping[str, Any]) -> Iterator[Headline]:
    for name, stage in result["stages"].items():
        yield Headline(f"{name}: exponent of its time", stage["seconds_exponent"], 1.1)
        yield Headline(f"{name}: exponent of its memory", stage["memory_exponent"], 1.1)


def _evaluation(result: Mapping[str, Any]) -> Iterator[Headline]:
    yield Headline("held-out answers: one by one / in batches", result["ratio"], 3, at_least=True)


def _ranks(result: Mapping[str, Any]) -> Iterator[Headline]:
    share = result["share_of_a_short_micro_batch"]
    yield Headline("two ranks agree on a stop / a micro-batch of 100 ms", share, 0.005)


def _report(result: Mapping[str, Any]) -> Iterator[Headline]:
    longest = max(result["runs"], key=lambda run: run["steps"])
    what = f"the report of {longest['steps']:,} steps"
    targets = result["targets"]
    yield Headline(f"{what}, seconds", longest["first_seconds"], targets["seconds"])
    size = longest["bytes"]["report.html"]
    yield Headline(f"{what}, MB", size / 1e6, targets["page_bytes"] / 1e6)


def _fleet(result: Mapping[str, Any]) -> Iterator[Headline]:
    runs = result["setup"]["runs"]
    broken = len(result["fleet"]["violations"])
    yield Headline(f"broken promises among {runs} runs at once", broken, 0)


READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Iterator[Headline]]]] = {
    "startup": _startup,
    "commands": _commands,
    "overhead-smollm2": _overhead,
    "overhead-tiny": _short_steps,
    "throughput-smollm2": _throughput,
    "data-distinct": _data,
    "data-shared": _data,
    "checkpoint": _checkpoint,
    "goodput": _goodput,
    "growth": _growth,
    "evaluation-smollm2": _evaluation,
    "ranks": _ranks,
    "report": _report,
    "fleet": _fleet,
}
