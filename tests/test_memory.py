"""The estimate of GPU memory: against sizes that are known, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu.shapes import LLAMA_8B, QWEN_14B
from job.errors import OutOfGpuMemory
from job.memory import GIB, GPUS, Shape, estimate, foresee
from job.profiles import LORA_TARGET_MODULES, PROFILES


def shape(config: dict[str, Any]) -> Shape:
    found = Shape.of(config)
    assert found is not None
    return found


# Checkpoint sizes as they were measured (adapter in fp32, 8-bit Adam), in MB.
@pytest.mark.parametrize(
    ("config", "rank", "adapter", "optimizer"),
    [
        (LLAMA_8B, 16, 168, 85),
        (LLAMA_8B, 128, 1340, 680),
        (QWEN_14B, 16, 275, 140),
        (QWEN_14B, 128, 2200, 1120),
    ],
)
def test_lora_and_optimizer_are_as_large_as_their_checkpoints(
    config: dict[str, Any], rank: int, adapter: float, optimizer: float
) -> None:
    hyperparameters = replace(PROFILES["balanced"], lora_r=rank)
    found = estimate(shape(config), hyperparameters)
    assert found.lora / 2 / 1e6 == pytest.approx(adapter, rel=0.01)  # weights, as gradients
    assert found.optimizer / 1e6 == pytest.approx(optimizer, rel=0.02)


def test_lora_parameters_are_those_of_a_real_model() -> None:
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    with torch.device("meta"):
        lora = LoraConfig(r=8, target_modules=list(LORA_TARGET_MODULES))
        model = get_peft_model(LlamaForCausalLM(config), lora)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape(config.to_dict()).lora_parameters(8) == trained


def test_more_of_anything_takes_more() -> None:
    base = PROFILES["balanced"]
    least = estimate(shape(LLAMA_8B), base).total
    for more in (
        replace(base, lora_r=32),
        replace(base, per_device_train_batch_size=4),
        replace(base, max_seq_length=4096),
        replace(base, optim="adamw_torch"),
        replace(base, lora_dropout=0.05),
    ):
        assert estimate(shape(LLAMA_8B), more).total > least
    assert estimate(shape(QWEN_14B), base).total > least
    assert estimate(shape(LLAMA_8B), base, longest=300).total < least
    assert estimate(shape(LLAMA_8B), base, longest=9999).total == least, "longer rows are dropped"
    tied = shape(LLAMA_8B | {"tie_word_embeddings": True})
    saved = least - estimate(tied, base).total
    assert saved == pytest.approx(128256 * 4096 * 2 * 1.05)


@pytest.mark.parametrize(
    "config", [{}, {"hidden_size": "wide"}, QWEN_14B | {"num_attention_heads": 0}]
)
def test_other_kinds_of_models_have_no_estimate(config: dict[str, Any]) -> None:
    assert Shape.of(config) is None


def test_what_is_said() -> None:
    said = foresee(shape(LLAMA_8B), PROFILES["balanced"], None, None)
    assert "GiB at micro-batch 2" in said
    assert all(name in said for name in GPUS)
    large = replace(PROFILES["max_quality"], per_device_train_batch_size=8)
    total = estimate(shape(QWEN_14B), large).total
    assert "would go on with a smaller" in foresee(shape(QWEN_14B), large, None, total / 1e9 - 1)
    with pytest.raises(OutOfGpuMemory, match="are needed at micro-batch 1, 8 GB are there") as e:
        foresee(shape(QWEN_14B), large, None, 8)
    assert e.value.exit_code == 71
    assert total / GIB > 8


def test_the_documented_table_is_that_of_the_estimate() -> None:
    """docs/models.md shows it for both default models."""
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    for name, config in (("DeepSeek-R1-Distill-Llama-8B", LLAMA_8B), ("Qwen2.5-14B", QWEN_14B)):
        sizes = [f"{estimate(shape(config), PROFILES[p]).gib:.1f}" for p in PROFILES]
        assert f"| {name} | {' | '.join(sizes)} |" in text


def test_the_reference_engines_embeddings_take_twice_as_much() -> None:
    """As PEFT leaves them."""
    shape_8b, hyperparameters = shape(LLAMA_8B), PROFILES["balanced"]
    ours = estimate(shape_8b, hyperparameters, engine="reference")
    assert ours.embeddings == 2 * estimate(shape_8b, hyperparameters).embeddings
    assert "fits" in foresee(shape_8b, hyperparameters, None, 10)
    with pytest.raises(OutOfGpuMemory, match="are needed at micro-batch 1, 10 GB are there"):
        foresee(shape_8b, hyperparameters, None, 10, "reference")
