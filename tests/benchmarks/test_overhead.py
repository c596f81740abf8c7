"""The overhead benchmark: its arithmetic on made-up runs, and one real pair, timings unjudged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures import Comparison, Record, by_name, compare, markdown, summary
from benchmarks.stopwatch import Span, Stopwatch

ROOT = Path(__file__).resolve().parent.parent.parent


def record(seconds: list[float], spans: list[Span] | None = None, loss: float = 1.0) -> Record:
    """A run whose steps took so long."""
    ends = {step: sum(seconds[:step]) for step in range(1, len(seconds) + 1)}
    return Record(ends, dict.fromkeys(ends, loss), 2, "cpu", tuple(spans or ()))


def span(ended: float, seconds: float, *, foreground: bool = True, outermost: bool = True) -> Span:
    return Span("Class.method", ended - seconds, seconds, seconds / 2, foreground, outermost)


def test_durations_leave_out_the_warm_up() -> None:
    assert record([9, 9, 1, 2]).durations() == {3: 1, 4: 2}


def test_ratios_with_and_without_the_steps_that_bear_a_checkpoint() -> None:
    bare = record([9, 9, 2, 2, 2, 2, 2, 2])
    job = record([1, 1, 2, 2, 6, 4, 3, 3])
    found = compare("bare", bare, job, saved=[4, 8])  # so 5 and 6 bear it
    assert found.ratio == 3 / 2
    assert found.ratio_without_checkpoints == 2.5 / 2
    assert found.ratio_of_sums == 20 / 12


def test_own_code_counts_once_and_only_on_the_training_thread() -> None:
    spans = [
        span(1.5, 0.5),  # in the warm-up
        span(2.4, 0.2),
        span(2.3, 0.1, outermost=False),
        span(2.5, 0.3, foreground=False),
        span(3.5, 0.4),
        span(9.0, 0.4),  # after the last step
    ]
    job = record([1, 1, 1, 1], spans)
    assert job.own() == pytest.approx({3: 0.2, 4: 0.4})
    found = compare("job", record([1, 1, 1, 1]), job, saved=[])
    assert found.own_step == pytest.approx(0.3)
    assert found.own_share == pytest.approx(0.3)
    assert found.own_share_of_sum == pytest.approx(0.6 / 2)
    rows = by_name([job])
    assert rows["Class.method"]["calls"] == 3
    assert rows["Class.method (background)"]["ms_per_step"] == pytest.approx(150)


def test_other_losses_are_noticed() -> None:
    bare, job = record([1] * 4), record([1] * 4, loss=1.0000001)
    assert compare("bare", bare, bare, saved=[]).same_losses
    assert not compare("bare", bare, job, saved=[]).same_losses


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="steps differ"):
        compare("bare", record([1] * 4), record([1] * 5), saved=[])
    with pytest.raises(ValueError, match="take more steps"):
        compare("bare", record([1] * 4), record([1] * 4), saved=[2])


def test_the_summary_is_the_median_pair_and_the_spread_of_the_bare_runs() -> None:
    def pair(bare: float) -> Comparison:
        return Comparison("bare", bare, 2 * bare, 2.0, 2.0, 2.0, 0.1, 0.05, 0.06, same_losses=True)

    found = summary([pair(1.0), pair(1.2), pair(1.1)])
    assert found["bare_step"] == 1.1
    assert found["job_step"] == 2.2
    assert found["bare_spread"] == pytest.approx(0.2)


def test_the_stopwatch_tells_threads_and_nested_calls_apart() -> None:
    def inner() -> str:
        return "said"

    def outer() -> str:
        return str(module.inner())

    module: Any = types.ModuleType("package.module")
    module.inner, module.outer = inner, outer
    stopwatch = Stopwatch()
    stopwatch.time(module, "inner")
    stopwatch.time(module, "outer")
    assert module.outer() == "said"
    thread = threading.Thread(target=module.inner)
    thread.start()
    thread.join()
    seen = [(one.name, one.foreground, one.outermost) for one in stopwatch.spans]
    assert seen == [
        ("module.inner", True, False),
        ("module.outer", True, True),
        ("module.inner", False, True),
    ]


def test_the_stopwatch_refuses_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="gone"):
        Stopwatch().time(Stopwatch, "gone")


@pytest.mark.parametrize("arguments", [["--steps", "5"], ["--pairs", "0"], ["--model", "big"]])
def test_a_bad_argument_is_refused_at_once(arguments: list[str]) -> None:
    done = benchmark(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


@pytest.mark.slow
def test_a_real_pair_computes_the_same_and_leaves_a_result(tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.json"
    done = benchmark("--model", "tiny", "--steps", "6", "--pairs", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["same_losses"] is True
    assert len(result["losses"]) == 6
    assert all(loss > 0 for loss in result["losses"].values())
    assert list(result["seconds"][0]["job"]) == ["3", "4", "5", "6"]
    assert result["median"]["bare_step"] > 0
    assert 0 < result["median"]["own_share"] < 1
    own_code = result["own_code"]
    for name in ("on_step_begin", "on_step_end", "on_log"):
        assert own_code[f"JobCallback.{name}"]["calls"] == 4
    assert own_code["JobCallback.on_save"]["calls"] == 1
    assert own_code["trainer.count"]["calls"] == 4
    text = out.with_suffix(".md").read_text()
    assert text == markdown(result)
    assert text in done.stdout


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with a setting in its environment that must not reach the job."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", *arguments],
        cwd=ROOT,
        env={**os.environ, "FORGE_MAX_STEPS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
