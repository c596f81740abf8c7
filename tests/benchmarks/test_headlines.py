"""The page of all benchmarks: fitted exponents, and the table of ratios beside their targets."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as suite
from benchmarks import report
from benchmarks.growth.__main__ import main
from benchmarks.growth.fit import exponent
from benchmarks.headlines import READERS, metrics_share, table

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


def test_growth_measures_a_stage(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    sizing = ["--scale", "0.125", "--repeats", "1", "--out", str(out)]
    assert main(["--stages", "restore", *sizing]) == 0
    found = json.loads(out.read_text())["stages"]["restore"]
    assert found["sizes"] == [1, 4, 16, 64]
    assert all(peak > 10_000_000 for peak in found["peak_bytes"])


def test_the_report_benchmark_says_on_which_machine_it_ran(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    report.main(["--steps", "100", "--out", str(out)])  # its code is that of a quiet machine
    result = json.loads(out.read_text())
    assert {"cpu", "cores", "load_before"} <= result["machine"].keys()
    assert "matplotlib" in result["versions"]


def test_the_page_holds_the_table_of_the_results_that_are_there() -> None:
    text = suite.README.read_text(encoding="utf-8")
    assert suite.refreshed(text) == text


def test_a_missed_target_is_said(tmp_path: Path) -> None:
    figures = {"first": 1.05, "second": 0.9}
    result = {"date": "2026-01-01", "ratios": figures}
    (tmp_path / "startup.json").write_text(json.dumps(result))
    lines = table(tmp_path).splitlines()
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["met", "**missed**"]


def test_the_suite_renews_all_that_the_table_reads_and_nothing_else() -> None:
    assert sorted(measure.result for measure in suite.SUITE.values()) == sorted(READERS)
    for measure in suite.SUITE.values():
        assert measure.command()[-2:] == ["--out", str(suite.RESULTS / f"{measure.result}.json")]


def test_the_rows_of_the_table_are_told_apart() -> None:
    names = [line.split("|")[1] for line in table(suite.RESULTS).splitlines()[2:]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"machine": {"cpu": "A", "cores": 2}}, "A, 2 cores"),
        ({"machine": {"cores": 2}}, "2 cores, CPU not recorded"),
        ({"cores": 4}, "4 cores, CPU not recorded"),
        ({}, "not recorded"),
    ],
)
def test_each_row_says_on_which_machine(
    tmp_path: Path, facts: dict[str, object], told: str
) -> None:
    (tmp_path / "evaluation-smollm2.json").write_text(
        json.dumps({"date": "2026-01-01", "ratio": 4} | facts)
    )
    assert [c.strip() for c in table(tmp_path).splitlines()[-1].split("|")][5] == told


def test_goodput_is_held_against_its_goal_and_assumed_costs_are_said(tmp_path: Path) -> None:
    def row(setting: str, goodput: float, **other: object) -> dict[str, object]:
        told = {"setting": setting, "policy": "ours", "per_hour": 1.0, "hard_share": 0.0}
        return told | {"goodput": goodput} | other

    def costs(origin: str) -> dict[str, object]:
        return {"ours": {"origin": origin}}

    rows = [row("small", 0.5, policy="rival"), row("small", 0.6, hard_share=0.1)]
    rows += [row("small", 0.7, per_hour=2.0), row("small", 0.995), row("large", 0.98)]
    settings = {"small": costs("measured"), "large": costs("assumed")}
    result = {"date": "2026-01-01", "costs": settings, "rows": rows}
    (tmp_path / "goodput.json").write_text(json.dumps(result))
    lines = [[c.strip() for c in line.split("|")] for line in table(tmp_path).splitlines()[2:]]
    assert [line[1:5] for line in lines] == [
        ["simulated goodput, 1 interruption an hour, small", "0.995", "at least 0.99", "met"],
        [
            "simulated goodput, 1 interruption an hour, large, costs assumed",
            "0.98",
            "at least 0.99",
            "**missed**",
        ],
    ]


def test_a_name_that_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suite.main(["nonsense"])
    assert "there are startup, commands, overhead" in capsys.readouterr().err


def test_the_share_of_metrics_counts_a_scrape_a_second() -> None:
    told = {"calls": 30, "cpu_ms_per_step": 0.1}
    own = dict.fromkeys(("JobCallback.on_log", "Monitor.stepped", "trainer.count"), told)
    # 60 answers in 30 steps, 2 ms a step: 1 ms an answer, of which a step of 100 ms has a tenth.
    own["MetricsServer._answer (background)"] = {"calls": 60, "cpu_ms_per_step": 2.0}
    assert metrics_share(own) == pytest.approx((0.3 + 0.1) / 100)
