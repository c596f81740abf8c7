"""The simulator, held against what can be worked out by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.goodput.__main__ import main, policies
from benchmarks.goodput.costs import MEASURED, Costs
from benchmarks.goodput.simulation import Interruption, Policy, simulate, young_daly
from benchmarks.goodput.traces import bursty, poisson, recorded

COSTS = Costs(
    step=10, micro_batch=2, write=1, overhead=2, upload=3, commit=1, restore=4, start=20, exit=0.5
)


def at(*times: float, hard: bool = False) -> Iterator[Interruption]:
    yield from (Interruption(time, hard) for time in times)
    yield from itertools.repeat(Interruption(1e12))


def test_without_interruptions_only_start_and_checkpoints_cost() -> None:
    outcome = simulate(Policy("p", COSTS, 100, None), at(), 60, work=1000)
    assert (outcome.start, outcome.restore, outcome.repeated) == (20, 0, 0)
    assert outcome.checkpoints == 10 * 2
    assert outcome.goodput == pytest.approx(1000 / 1040)


def test_ours_stops_at_a_micro_batch_and_loses_the_cut_step() -> None:
    # 75 s of training: 7 steps and 5 s; the micro-batch ends at 76.
    outcome = simulate(Policy("p", COSTS, 1000, "micro-batch"), at(95), 60, work=500)
    assert outcome.repeated == pytest.approx(6)
    assert outcome.shutdown == pytest.approx(1 + 3 + 1 + 0.5)
    assert (outcome.start, outcome.restore) == (40, 4)


def test_a_grace_period_that_is_too_short_costs_itself_and_all_since_the_last_checkpoint() -> None:
    outcome = simulate(Policy("p", COSTS, 50, "micro-batch"), at(95), 5, work=500)
    # At 75 s: 50 s, a checkpoint of 2 s, and 23 s of which nothing is durable.
    assert outcome.repeated == pytest.approx(23)
    assert outcome.shutdown == 5


def test_a_kill_without_notice_loses_what_is_not_durable() -> None:
    outcome = simulate(Policy("p", COSTS, 50, "micro-batch"), at(20 + 54, hard=True), 60, work=500)
    assert outcome.repeated == pytest.approx(52), "the checkpoint was still on its way"
    outcome = simulate(Policy("p", COSTS, 50, "micro-batch"), at(20 + 56, hard=True), 60, work=500)
    assert outcome.repeated == pytest.approx(4)


def test_waiting_first_trains_on() -> None:
    # 75 s, 3 more, then to the end of the step at 80.
    outcome = simulate(Policy("p", COSTS, 1000, "step", waits=3), at(95), 60, work=500)
    assert outcome.repeated == pytest.approx(0)
    assert outcome.shutdown == pytest.approx(1 + 3 + 1 + 0.5)


def test_an_interruption_while_it_starts_costs_that() -> None:
    outcome = simulate(Policy("p", COSTS, 1000, "step"), at(15), 60, work=100)
    assert (outcome.start, outcome.interruptions) == (35, 1)


def test_ours_is_never_below_periodic_checkpoints_alone() -> None:
    same = dict.fromkeys(MEASURED, COSTS)
    for rate, seed in itertools.product((0.5, 4.0), range(3)):
        by_name = {p.name: p for p in policies(same, rate)}
        ours = simulate(by_name["ours"], poisson(rate, 0, seed), 60)
        periodic = simulate(by_name["periodic, the same interval"], poisson(rate, 0, seed), 60)
        ceiling = simulate(by_name["start-up alone: the ceiling"], poisson(rate, 0, seed), 60)
        assert periodic.goodput <= ours.goodput <= ceiling.goodput


def test_periodic_checkpoints_lose_half_an_interval_on_average() -> None:
    free = replace(COSTS, write=0, overhead=0, upload=0, commit=0, restore=0, start=0)
    outcome = simulate(Policy("p", free, 600, None), poisson(1.0, 0, 1), 60, work=3e7)
    assert outcome.repeated / outcome.interruptions == pytest.approx(300, rel=0.1)


@pytest.mark.parametrize("trace", [poisson, bursty])
def test_traces_have_the_rate_they_are_asked_for(trace: type) -> None:
    gaps = [i.after for i in itertools.islice(trace(2.0, 0.1, 3), 40_000)]
    assert 3600 / (sum(gaps) / len(gaps)) == pytest.approx(2.0, rel=0.1)


def test_a_recorded_trace_is_replayed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("seconds\n100\n250\n")
    gaps = [i.after for i in itertools.islice(recorded(tmp_path / "t.csv", 0, 1), 3)]
    assert gaps == [100, 150, 100]


def test_young_daly() -> None:
    assert young_daly(2, 3600) == 120


def test_the_command_leaves_both_files(tmp_path: Path) -> None:
    out = tmp_path / "goodput.json"
    assert main(["--repeats", "2", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert len(result["verdicts"]) == 3
    assert {"cpu", "cores"} <= result["machine"].keys()
    assert "Python" in result["versions"]
    assert "± " in out.with_suffix(".md").read_text()
