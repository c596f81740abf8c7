"""The benchmark of generation runs, and its table says what it measured."""

import json
from pathlib import Path

from benchmarks.evaluation import main


def test_both_sides_answer_all_prompts(tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    assert main(["--model", "tiny", "--rows", "3", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["prompts"] == sum(batch["prompts"] for batch in result["batches"]) == 3
    assert result["ratio"] == result["one_by_one_seconds"] / result["batched_seconds"]
    assert f"{result['ratio']:.2f}" in out.with_suffix(".md").read_text()
