"""The benchmark of whole commands: its ratios, and one real pair, timings unjudged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.commands.__main__ import NAMES, ratios
from benchmarks.commands.timed import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def test_a_command_is_held_against_its_own_naive_script() -> None:
    timed = {"status": 0.3, "status, naive": 0.6, "status --all": 9.0, "help": 0.1}
    assert ratios({name: {"median": seconds} for name, seconds in timed.items()}) == {"status": 0.5}


def test_each_command_has_a_naive_script() -> None:
    assert {*NAMES, *(f"{name}, naive" for name in NAMES)} < COMMANDS.keys()


def test_a_real_pair_leaves_a_result(tmp_path: Path) -> None:
    out = tmp_path / "commands.json"
    command = [sys.executable, "-m", "benchmarks.commands", "--model", "tiny", "--runs", "3"]
    command += ["--only", "status --all", "--rounds", "2", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result["commands"].keys() == {"status --all", "status --all, naive"}
    assert all(len(stats["data"]) == 2 for stats in result["commands"].values())
    assert result["ratios"]["status --all"] > 0
    assert "pytest-benchmark" in out.with_suffix(".md").read_text()
