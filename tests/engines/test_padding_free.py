"""Several conversations in one row without padding: none sees another, positions begin anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tests.tiny import build_model

ROWS = [[5, 6, 7, 8, 9], [11, 12, 13], [21, 22, 23, 24]]
WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def batch(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    made: dict[str, torch.Tensor] = collate([{"input_ids": r, "labels": list(r)} for r in rows])
    return made


def test_positions_and_labels_begin_anew_with_each_conversation() -> None:
    made = batch(ROWS)
    assert made["input_ids"].tolist() == [[*ROWS[0], *ROWS[1], *ROWS[2]]]
    assert made["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3]]
    assert "attention_mask" not in made
    firsts = [made["labels"][0, at].item() for at in (0, 5, 8)]
    assert firsts == [-100, -100, -100], "no conversation's first token is predicted from another"


def logits(model_dir: Path, rows: list[list[int]]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(model_dir), attn_implementation="sdpa")
    made = batch(rows)
    with torch.no_grad():
        found: torch.Tensor = model(
            input_ids=made["input_ids"], position_ids=made["position_ids"], use_cache=False
        ).logits[0]
    return found


def test_attention_does_not_cross(tmp_path: Path) -> None:
    model = build_model(tmp_path / "model")
    together = logits(model, ROWS)
    alone = torch.cat([logits(model, [row]) for row in ROWS])
    assert torch.allclose(together, alone, atol=1e-5)
    changed = logits(model, [[30, 31, 32, 33, 34], *ROWS[1:]])
    assert torch.allclose(changed[5:], together[5:], atol=1e-5)
    assert not torch.allclose(changed[:5], together[:5], atol=1e-5)


@pytest.mark.gpu
@WITHOUT_GPU
def test_nor_does_unsloths(tmp_path: Path) -> None:
    """In a process of its own, as Unsloth wants to be imported first."""
    model = build_model(tmp_path / "model")
    command = [sys.executable, "-m", "tests.engines.unsloth_crossing", str(model)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
