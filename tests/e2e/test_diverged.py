"""A run whose loss is not finite any more leaves its curve behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from job.storage import open_storage
from tests.e2e.jobs import run
from tests.tiny import build_model, write_rows

RARE = "\U00100000"
"""No other row has its first byte (0xF4), which is a token of its own."""


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_diverged_run_leaves_a_report(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    model = build_model(tmp_path / "poisoned")
    token = AutoTokenizer.from_pretrained(str(model)).convert_tokens_to_ids("ô")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    rows = write_rows(tmp_path / "rows.jsonl", 70).read_text().splitlines()
    rows[20] = rows[20].replace("Use the tools.", f"Use the tools {RARE}.")
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    storage = open_storage(bucket)
    storage.upload("data/rows.jsonl", tmp_path / "rows.jsonl")

    ended = run({**job_env, "FORGE_MODEL": str(model)}, tmp_path / "log")
    assert ended.code == 81, ended.log

    document = json.loads(storage.read("out/run/report/report.json")[0])
    assert document["status"] == "failed"
    assert document["attempts"][0]["exit_code"] == 81
    broken = document["training"]["first_not_finite"]
    assert broken["loss"] == "nan"
    assert broken["step"] > 1
    page = storage.read("out/run/report/report.html")[0].decode()
    assert f"The loss of step {broken['step']} is nan." in page
    assert "loss is nan" in page
    history = storage.read("out/run/report/metrics.jsonl")[0].splitlines()
    losses = [json.loads(line).get("loss", 0.0) for line in history]
    assert losses[-1] is None
    assert all(loss is not None for loss in losses[:-1])
