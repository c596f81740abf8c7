"""Twenty runs at once on the real server: preempted, cut off, through a storm of 503."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fleet.__main__ import _arguments, main
from benchmarks.fleet.figures import by_tenth, hourly, price


def test_nothing_committed_is_lost_by_a_small_fleet(
    aws_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    out = tmp_path / "fleet.json"
    sizes = ["--runs", "12", "--interval", "1", "--storm", "2", "--processes", "1"]

    code = main([*sizes, "--preemptions", "1", "--output", f"{bucket}/x", "--out", str(out)])

    result = json.loads(out.read_text())
    fleet = result["fleet"]
    assert fleet["violations"] == []
    assert code == 0
    assert result["summary"]["runs"] == {"succeeded": 12}
    assert fleet["attempts"] >= 24
    assert fleet["restored"] > 0
    assert sum(fleet["storm_requests_by_second"]) > 0
    assert result["summary"]["requests"] == {"GET": 12, "LIST": 1}
    assert sum(fleet["heartbeats_before_storm"]) >= 12, "each once, at least"
    assert max(fleet["heartbeats_before_storm"]) < sum(fleet["heartbeats_before_storm"])
    assert result["per_event"]["heartbeat"] == {"PUT": 1}
    assert {"cpu", "cores", "load_before"} <= result["machine"].keys()
    assert "boto3" in result["versions"]
    assert "Violations: 0" in out.with_suffix(".md").read_text()


def test_an_hour_and_its_price() -> None:
    save = "checkpoint of 3 files, with the end of an older one"
    hour = hourly({"heartbeat": {"PUT": 1}, save: {"PUT": 5, "LIST": 1, "DELETE": 1}})
    assert hour == {"DELETE": 6, "LIST": 6, "PUT": 150}
    assert price({**hour, "GET": 10}, 0.01, 0.1) == pytest.approx((156 * 0.01 + 10 * 0.1) / 1000)


def test_heartbeats_fall_into_tenths_of_their_interval() -> None:
    assert by_tenth([0.0, 100.1, 30.05, 1.0, 19.999], every=10.0) == [3, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_more_runs_take_longer_intervals_and_their_own_word_counts() -> None:
    few, many = (_arguments(["--runs", n]).interval for n in ("10", "5000"))
    assert few < many
    assert _arguments(["--runs", "5000", "--interval", "3"]).interval == 3


def test_a_fleet_that_does_not_end_is_given_up(
    aws_env: dict[str, str], bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--runs", "2", "--interval", "60", "--limit", "0.5", "--processes", "1"]
    out = tmp_path / "fleet.json"
    assert main([*sizes, "--output", f"{bucket}/x", "--out", str(out)]) == 1
    assert "did not end within 0.5 s" in capsys.readouterr().err
    assert not out.exists()
