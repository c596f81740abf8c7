"""The demo as a whole, shortened: the real model, a preemption, a resume, a copy of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.demo.demo import demo

SHORTER = {
    "FORGE_MAX_STEPS": "6",
    "FORGE_WARMUP_STEPS": "1",
    "FORGE_PER_DEVICE_TRAIN_BATCH_SIZE": "1",
    "FORGE_EVAL_STEPS": "1000",
    "FORGE_EVAL_MAX_ROWS": "2",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_is_preempted_resumes_and_leaves_its_run(
    aws_env: dict[str, str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORGE_MAX_STEPS", "1000")  # the user's own variables don't reach it
    output = tmp_path / "demo-output"

    assert demo(output, cache, SHORTER | {"FORGE_WORK_DIR": str(tmp_path / "work")}) == 0

    record = json.loads((output / "run.json").read_text())
    assert record["status"] == "succeeded"
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [75, 0]
    assert record["attempts"][1]["from_step"] >= 3
    assert record["progress"]["step"] == 6
    assert record["results"]["evaluation"]["rows"] == 2
    assert (output / "adapter" / "adapter_model.safetensors").stat().st_size > 1_000_000
    assert "<svg" in (output / "report" / "report.html").read_text()
    said = capfd.readouterr().out
    assert "forge_global_step" in said
    assert "base against adapter" in said
    assert f"{output / 'report' / 'report.html'}" in said
