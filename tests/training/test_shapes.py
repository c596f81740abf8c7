"""A checkpoint that is sound, and of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from job.errors import FingerprintMismatch
from job.training.shapes import refuse_other_shapes


def model_of(width: int, layers: int) -> Any:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=width,
        intermediate_size=width,
        num_attention_heads=2,
        num_hidden_layers=layers,
    )
    return get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules=["q_proj"]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_of(8, 2).save_pretrained(tmp_path, save_embedding_layers=False)
    return tmp_path


def test_the_same_model_again(folder: Path) -> None:
    refuse_other_shapes(model_of(8, 2), folder)


@pytest.mark.parametrize(
    ("width", "layers", "said"),
    [
        (16, 2, "4 of the checkpoint's 4 matrices .*lora_A.weight is 2 × 8 there and 2 × 16 here"),
        (8, 1, "2 of the checkpoint's 4 matrices .*is 2 × 8 there and missing here"),
        (8, 3, "2 of the checkpoint's 4 matrices .*is missing there and 2 × 8 here"),
    ],
)
def test_another_one_is_refused(folder: Path, width: int, layers: int, said: str) -> None:
    with pytest.raises(FingerprintMismatch, match=said) as refused:
        refuse_other_shapes(model_of(width, layers), folder)
    assert "FORGE_MODEL" in str(refused.value)
