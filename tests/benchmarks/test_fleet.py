"""Twenty runs at once on the real server: preempted, cut off, through a storm of 503."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fleet import calculated
from benchmarks.fleet.__main__ import _arguments, main
from benchmarks.fleet.calculated import Inputs, Measured
from benchmarks.fleet.figures import by_tenth
from benchmarks.fleet.whole import main as whole


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


@pytest.mark.slow
def test_every_request_of_a_real_run_is_counted(
    aws_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    out = tmp_path / "run.json"
    assert whole(["--output", f"{bucket}/x", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    first, second = result["attempts"]
    assert first["files"] == second["files"] == [12]
    assert (first["checkpoints"], second["checkpoints"]) == (5, 4)
    for attempt in (first, second):
        least = attempt["checkpoints"] * (12 + 2)
        assert least <= attempt["stages"]["checkpoints"]["PUT"] <= least + 4, "it tidies up, too"
    assert second["stages"]["restore"] == {"GET": 12 + 1}
    assert {"start", "data", "model", "end"} <= first["stages"].keys()
    assert {"evaluation", "publishing", "end"} <= second["stages"].keys()
    assert result["file_in_parts"]["upload"] == {"PUT": calculated.up(3 * 2**24)}
    assert result["file_in_parts"]["download"] == {"GET": calculated.down(3 * 2**24)}
    assert "| attempt 2: restore | 0 | 13 |" in out.with_suffix(".md").read_text()


SAVE = {"PUT": 5, "LIST": 1, "DELETE": 1}


def test_an_hour_and_its_price() -> None:
    events = {
        "heartbeat": {"PUT": 1},
        "checkpoint of 3 files, with the end of an older one": SAVE,
    }
    measured = Measured({}, events)
    slow = Inputs(step_seconds=12, files=3, large_mb=(), put_price=0.01, get_price=0.1)
    hour = calculated.hourly(measured, slow)
    assert hour == {"DELETE": 6, "LIST": 6, "PUT": 150}
    found = calculated.price({**hour, "GET": 10}, slow)
    assert found == pytest.approx((156 * 0.01 + 10 * 0.1) / 1000)
    real = Inputs(step_seconds=12, large_mb=(168.0, 10.0))
    assert calculated.checkpoint(measured, real)["PUT"] == 11 + (11 + 2) + 2, "parts of 16 MiB"


@pytest.mark.parametrize(
    ("inputs", "saves"),
    [
        (Inputs(step_seconds=1), 72),
        (Inputs(step_seconds=12), 6),
        (Inputs(step_seconds=24), 6),  # at 600 s, and at the 50th step
        (Inputs(step_seconds=18), 8),  # at 600 s, and 300 s later at the 50th step
        (Inputs(step_seconds=12, eval_steps=25), 18),
    ],
)
def test_a_checkpoint_is_due_by_steps_or_by_time(inputs: Inputs, saves: float) -> None:
    assert calculated.saves_an_hour(inputs) == pytest.approx(saves)


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
