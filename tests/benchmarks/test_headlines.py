"""The page of all benchmarks: fitted exponents, and the table of ratios beside their targets."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from benchmarks.growth.__main__ import main
from benchmarks.growth.fit import exponent
from benchmarks.headlines import metrics_share, table

SIZES = (10, 20, 40, 80)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    assert exponent(SIZES, [3 * size**power for size in SIZES]) == pytest.approx(power, abs=0.05)


def test_what_grows_slower_than_its_input_stays_below_1() -> None:
    assert exponent(SIZES, [3 * size**0.5 for size in SIZES]) < 0.9


def test_what_every_size_needs_is_not_taken_for_growth() -> None:
    assert exponent(SIZES, [500 + 2 * size for size in SIZES]) == pytest.approx(1.0, abs=0.05)


def test_what_does_not_grow_has_exponent_0() -> None:
    assert exponent(SIZES, [100, 102, 99, 101]) == 0.0


def test_growth_measures_stages(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    stages = ["restore", "status --all"]
    sizing = ["--scale", "0.125", "--repeats", "1", "--out", str(out)]
    assert main(["--stages", *stages, *sizing]) == 0
    found = json.loads(out.read_text())["stages"]
    assert [found[name]["sizes"] for name in stages] == [[1, 4, 16, 64], [3, 12, 50, 200]]
    for name in stages:
        assert all(peak > 10_000_000 for peak in found[name]["peak_bytes"])


def test_the_page_holds_the_table_of_the_results_that_are_there() -> None:
    text = suite.README.read_text(encoding="utf-8")
    assert suite.refreshed(text) == text


def test_a_missed_target_is_said(tmp_path: Path) -> None:
    figures = {"first": 1.05, "second": 0.9}
    result = {"date": "2026-01-01", "ratios": figures, "commands": {"status": 0.3}}
    (tmp_path / "startup.json").write_text(json.dumps(result))
    lines = table(tmp_path).splitlines()
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["met", "**missed**", "met"]


def test_a_name_that_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["nonsense"])
    assert "there are startup, overhead" in capsys.readouterr().err


def test_the_share_of_metrics_counts_a_scrape_a_second() -> None:
    told = {"calls": 30, "cpu_ms_per_step": 0.1}
    own = dict.fromkeys(("JobCallback.on_log", "Monitor.stepped", "trainer.count"), told)
    # 60 answers in 30 steps, 2 ms a step: 1 ms an answer, of which a step of 100 ms has a tenth.
    own["MetricsServer._answer (background)"] = {"calls": 60, "cpu_ms_per_step": 2.0}
    assert metrics_share(own) == pytest.approx((0.3 + 0.1) / 100)
