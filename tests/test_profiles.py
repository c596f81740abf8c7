"""The profiles and families of the contract, and what overrides them."""

from __future__ import annotations

from typing import Any

import pytest

from job.config import load_settings
from job.families import FAMILIES
from job.profiles import LORA_TARGET_MODULES, PROFILES, Hyperparameters
from tests.settings import GIVEN, REQUIRED


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


EVERYWHERE = {
    "weight_decay": 0.01,
    "lr_scheduler_type": "linear",
    "optim": "adamw_8bit",
    "max_seq_length": 2048,
    "seed": 3407,
}

TABLE: dict[str, dict[str, Any]] = {
    "fast_dev": {
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_steps": 60,
        "num_train_epochs": 1.0,
        "learning_rate": 2e-4,
        "warmup_steps": 5,
        "warmup_ratio": 0.0,
    },
    "balanced": {
        "lora_r": 16,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_steps": -1,
        "num_train_epochs": 1.0,
        "learning_rate": 2e-4,
        "warmup_steps": 0,
        "warmup_ratio": 0.03,
    },
    "max_quality": {
        "lora_r": 128,
        "lora_alpha": 256,
        "lora_dropout": 0.05,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "max_steps": -1,
        "num_train_epochs": 3.0,
        "learning_rate": 1e-4,
        "warmup_steps": 0,
        "warmup_ratio": 0.05,
    },
}
"""The contract's, section 7."""


@pytest.mark.parametrize("profile", TABLE)
def test_a_profile_is_the_contract_s(profile: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_PROFILE", profile)
    found = load_settings().hyperparameters()
    assert vars(found) == EVERYWHERE | TABLE[profile]
    assert found.effective_batch_size == 8


def test_there_are_no_other_profiles_and_families() -> None:
    assert set(PROFILES) == set(TABLE)
    assert {name: family.base_model for name, family in FAMILIES.items()} == {
        "qwen-2.5": "unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
        "deepseek-r1": "unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit",
        "llama-3": "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
        "smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    }


def test_all_linear_layers_are_adapted() -> None:
    layers = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
    assert " ".join(LORA_TARGET_MODULES) == layers


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_brings_its_model(family: str, env: pytest.MonkeyPatch) -> None:
    env.setenv("FORGE_MODEL_FAMILY", family)
    assert load_settings().base_model == FAMILIES[family].base_model
    env.setenv("FORGE_MODEL", "owner/other")
    assert load_settings().base_model == "owner/other"


@pytest.mark.parametrize("profile", TABLE)
@pytest.mark.parametrize("name", list(Hyperparameters.__dataclass_fields__))
def test_each_value_of_a_profile_can_be_overridden(
    profile: str, name: str, env: pytest.MonkeyPatch
) -> None:
    env.setenv("FORGE_PROFILE", profile)
    text, value = GIVEN[name]
    env.setenv(f"FORGE_{name.upper()}", text)
    assert getattr(load_settings().hyperparameters(), name) == value


@pytest.mark.parametrize(
    ("given", "length"),
    [
        ({}, (60, 1.0)),
        ({"num_train_epochs": 2}, (-1, 2.0)),
        ({"max_steps": 10}, (10, 1.0)),
        ({"num_train_epochs": 2, "max_steps": 10}, (10, 2.0)),
    ],
)
def test_epochs_alone_lift_the_profile_s_steps(
    given: dict[str, Any], length: tuple[int, float]
) -> None:
    h = load_settings(profile="fast_dev", **given).hyperparameters()
    assert (h.max_steps, h.num_train_epochs) == length


@pytest.mark.parametrize(
    ("profile", "given", "warmup"),
    [
        ("fast_dev", {"warmup_ratio": 0.1}, (0, 0.1)),
        ("fast_dev", {"warmup_ratio": 0.1, "warmup_steps": 7}, (7, 0.1)),
        ("fast_dev", {"warmup_steps": 0}, (0, 0.0)),
        ("balanced", {"warmup_steps": 7}, (7, 0.0)),
        ("balanced", {"warmup_steps": 0}, (0, 0.0)),
        ("balanced", {"warmup_ratio": 0.0}, (0, 0.0)),
    ],
)
def test_one_kind_of_warm_up_alone_lifts_the_other(
    profile: str, given: dict[str, Any], warmup: tuple[int, float]
) -> None:
    h = load_settings(profile=profile, **given).hyperparameters()
    assert (h.warmup_steps, h.warmup_ratio) == warmup
