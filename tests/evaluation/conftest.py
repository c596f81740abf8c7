"""The tiny model with an adapter that says other things than its base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from job.dataset import ChatFormat, Row
from tests.evaluation.chat import Server
from tests.tiny import rows


@dataclass(frozen=True)
class Loaded:
    model: Any
    tokenizer: Any
    chat: ChatFormat


@pytest.fixture(scope="session")
def tiny_folder(tiny_model: Path) -> Path:
    return tiny_model


@pytest.fixture
def loaded(tiny_folder: Path) -> Loaded:
    """Trained not to say sense, but to differ: its LoRA weights are drawn."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(str(tiny_folder))
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_folder))
    return Loaded(adapted, tokenizer, ChatFormat.load(tiny_folder))


@pytest.fixture
def held_out() -> list[Row]:
    """Rows of two scenarios, of prompts of many lengths."""
    made = []
    for i, row in enumerate(rows(12)):
        messages = [dict(message) for message in row["messages"]]
        messages[1]["content"] += " please" * (40 * (i % 5))
        meta = {"scenario": f"kind {i % 2}"}
        made.append(Row("x", i + 1, tuple(messages), meta=meta))
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()
