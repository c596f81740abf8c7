"""Twenty runs at once on the real server: preempted, cut off, through a storm of 503."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fleet.__main__ import main
from benchmarks.fleet.figures import hourly, price


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
    assert result["per_event"]["heartbeat"] == {"PUT": 1}
    assert "Violations: 0" in out.with_suffix(".md").read_text()


def test_an_hour_and_its_price() -> None:
    save = "checkpoint of 3 files, with the end of an older one"
    hour = hourly({"heartbeat": {"PUT": 1}, save: {"PUT": 5, "LIST": 1, "DELETE": 1}})
    assert hour == {"DELETE": 6, "LIST": 6, "PUT": 150}
    assert price(hour) == pytest.approx(156 * 0.005 / 1000)
