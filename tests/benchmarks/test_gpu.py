"""The GPU suite where there is no GPU: every stage runs, on tiny models, and the table is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import pack, rows
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.stages import GPU_TESTS, STAGES, step_seconds
from benchmarks.gpu.table import markdown
from job.memory import GIB, Shape, estimate
from job.profiles import PROFILES

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dry_run_goes_through_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "gpu-cpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "all", "--device", "cpu", "--steps", "6"]
    command += ["--folder", str(tmp_path / "work"), "--out", str(out), "--profiles", "fast_dev"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads(out.read_text())
    found = result["found"]
    sides = [("8b", side) for side in ("job", "job-again", "trl")]
    for shape, side in [*sides, ("14b", "job")]:
        measured = found[f"speed-{shape}-fast_dev-{side}"]
        assert measured["step_seconds"] > 0
        assert len(measured["steps"]) == 6
    # The same rows in the same order: the job and the script compute the same losses.
    losses = [
        [loss for _, _, loss in found[f"speed-8b-fast_dev-{side}"]["steps"]]
        for side in ("job", "trl")
    ]
    assert losses[0] == losses[1]
    job = found["job"]
    assert (job["stopped"]["code"], job["code"], job["status"]) == (75, 0, "succeeded")
    assert (job["adapter"], job["gate"]) == (True, "passed")
    assert job["resume_drift"] in (None, 0)  # None: stopped before the next step had any loss
    assert job["resumed_from"] > 0
    assert "passed" in found["contract"]["summary"]
    table = out.with_suffix(".md").read_text()
    assert "no figure below says anything about a GPU" in table
    assert "MISSED" not in table.partition("## 8b")[2], "no verdicts on a dry run's speed"


def test_the_stages_are_documented() -> None:
    text = (ROOT / "benchmarks" / "gpu" / "README.md").read_text(encoding="utf-8")
    for stage in STAGES:
        assert f"benchmarks.gpu {stage}" in text


def test_no_test_for_a_card_is_elsewhere() -> None:
    files = set((ROOT / "tests").rglob("test_*.py")) - {Path(__file__)}
    marked = [path for path in files if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    assert marked
    for path in marked:
        assert str(path.parent.relative_to(ROOT)) in GPU_TESTS, path


def test_lengths_are_spread(tmp_path: Path) -> None:
    path = rows.write(tmp_path / "rows.jsonl", 200, 7000)
    lengths = sorted(len(line) for line in path.read_text().splitlines())
    assert lengths[180] > 3 * lengths[20]
    assert path.read_text() == rows.write(tmp_path / "again.jsonl", 200, 7000).read_text()


def test_the_first_steps_are_not_compared() -> None:
    ends = [100.0, 150.0, 151.0, 152.0, 153.0, 163.0]
    steps = [[number, end, 1.0] for number, end in enumerate(ends, 1)]
    assert step_seconds(steps) == 1.0


def measured(seconds: float, tokens: float, peak: float) -> dict[str, Any]:
    return {
        "step_seconds": seconds,
        "supervised_tokens_per_second": tokens,
        "peak_bytes": peak,
        "first_step_seconds": 30.0,
        "hyperparameters": vars(PROFILES["balanced"]),
    }


def test_goals_are_held_against_what_was_measured() -> None:
    shape = Shape.of(SHAPES["8b"])
    assert shape is not None
    predicted = estimate(shape, PROFILES["balanced"]).total
    found = {
        "speed-8b-balanced-job": measured(1.02, 900, predicted / 1.1),
        "speed-8b-balanced-unsloth": measured(1.0, 910, 7 * GIB),
        "speed-8b-balanced-trl": measured(2.0, 450, 2 * predicted),
        "speed-14b-balanced-job": {"failed": "exit code 71", "log": "…"},
    }
    facts = {"device": "cuda", "date": "today", "name": "card", "driver": "1", "versions": {}}
    table = markdown(facts, found)
    assert "step to bare Unsloth's: 1.020 (at most 1.01): MISSED" in table
    assert "supervised tokens a second to TRL's: 2.000 (at least 1.8): met" in table
    assert "peak to TRL's: 0.455 (at most 0.5): met" in table
    assert "off by +10%" in table
    assert "**speed-14b-balanced-job failed**: exit code 71" in table
    assert "## 14b" not in table


def test_what_a_bare_machine_is_brought() -> None:
    names = {line.partition("==")[0] for line in pack.carried([*pack.THERE, *pack.THERE_TOO])}
    assert {"unsloth", "unsloth-zoo", "bitsandbytes", "trl", "peft", "pydantic"} <= names
    assert {"moto", "flask", "pytest"} <= names, "the embedded store, and what runs the contract"
    assert not names & {"torch", "triton", "transformers", "numpy", "xformers"}
    assert not [name for name in names if name.startswith("nvidia-")]


def test_the_machine_may_lack_more() -> None:
    assert "pandas" in {line.partition("==")[0] for line in pack.carried(["torch", "pyarrow"])}


def test_only_its_own_kernels_and_services_stay(tmp_path: Path) -> None:
    kernels = tmp_path / "bitsandbytes"
    services = tmp_path / "botocore" / "data"
    kernels.mkdir()
    for name in ("cpu", "cuda128", "cuda130", "rocm70", "xpu2026"):
        (kernels / f"libbitsandbytes_{name}.so").touch()
    for name in ("s3", "ec2"):
        (services / name).mkdir(parents=True)
    (services / "endpoints.json").touch()
    pack.strip(tmp_path, "130")
    assert {path.stem[16:] for path in kernels.iterdir()} == {"cpu", "cuda130"}
    assert {path.name for path in services.iterdir()} == {"s3", "endpoints.json"}
