"""The three training profiles, and the hyperparameters a run resolves to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

LORA_TARGET_MODULES: Final = (
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
)
"""All linear layers of a Llama or Qwen block, as the QLoRA paper advises (arXiv:2305.14314, 4)."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What training is set to, every value explicit. Names are those of PEFT and transformers."""

    lora_r: int
    lora_alpha: int
    lora_dropout: float
    learning_rate: float
    max_steps: int
    """Optimizer steps; -1 lets `num_train_epochs` decide, as in transformers."""
    num_train_epochs: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    warmup_steps: int
    """Optimizer steps of linear warm-up; 0 lets `warmup_ratio` decide."""
    warmup_ratio: float
    weight_decay: float = 0.01
    lr_scheduler_type: str = "linear"
    optim: str = "adamw_8bit"
    max_seq_length: int = 2048
    """Tokens a conversation may have."""
    seed: int = 3407

    @property
    def effective_batch_size(self) -> int:
        """Conversations an optimizer step sees in one process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


PROFILES: Final[dict[str, Hyperparameters]] = {
    "fast_dev": Hyperparameters(
        lora_r=8,
        lora_alpha=16,
        lora_dropout=0.0,
        learning_rate=2e-4,
        max_steps=60,
        num_train_epochs=1.0,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        warmup_steps=5,
        warmup_ratio=0.0,
    ),
    "balanced": Hyperparameters(
        lora_r=16,
        lora_alpha=16,
        lora_dropout=0.0,
        learning_rate=2e-4,
        max_steps=-1,
        num_train_epochs=1.0,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        warmup_steps=0,
        warmup_ratio=0.03,
    ),
    "max_quality": Hyperparameters(
        lora_r=128,
        lora_alpha=256,
        lora_dropout=0.05,
        learning_rate=1e-4,
        max_steps=-1,
        num_train_epochs=3.0,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8,
        warmup_steps=0,
        warmup_ratio=0.05,
    ),
}


def resolved(profile: Hyperparameters, given: Mapping[str, Any]) -> Hyperparameters:
    """The profile with what is given, and is not None, on top.

    Epochs or a warm-up ratio given alone replace the profile's step counts: they would otherwise
    be silently outranked by them.
    """
    values = vars(profile)
    own = {name: value for name in values if (value := given.get(name)) is not None}
    if "num_train_epochs" in own:
        own.setdefault("max_steps", -1)
    if "warmup_ratio" in own:
        own.setdefault("warmup_steps", 0)
    elif "warmup_steps" in own:
        own["warmup_ratio"] = 0.0  # else no steps would mean the profile's ratio
    return Hyperparameters(**(values | own))
