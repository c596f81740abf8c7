"""What both engines promise. Unsloth's half needs a GPU: `benchmarks.gpu contract` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from job.profiles import LORA_TARGET_MODULES, PROFILES
from tests.tiny import build_model
from tests.training.runs import made_data

ROOT = Path(__file__).parents[2]
WITHOUT_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
ENGINES = [
    "reference",
    pytest.param("unsloth", marks=[pytest.mark.gpu, WITHOUT_GPU]),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def facts(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By engine: what a run of it was like. Each is run once."""

    @cache
    def of(engine: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(engine)
        command = [sys.executable, "-m", "tests.engines.contract", engine, str(model), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    return of


@pytest.mark.parametrize("engine", ENGINES)
def test_every_supervised_token_is_counted_once(engine: str, facts: Any, tmp_path: Path) -> None:
    """Padded or padding-free: 30 rows in steps of 8."""
    found = facts(engine)
    data = made_data(tmp_path)
    rows = [data.train[i] for i in range(len(data.train))]
    assert [step["samples"] for step in found["steps"]] == [8, 8, 8, 6]
    assert sum(step["tokens"] for step in found["steps"]) == sum(len(r.input_ids) for r in rows)
    assert sum(step["supervised_tokens"] for step in found["steps"]) == sum(
        int((row.labels != -100).sum()) for row in rows
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_losses_and_evaluations(engine: str, facts: Any) -> None:
    found = facts(engine)
    assert found["step"] == 4
    assert found["losses"] == [1, 2, 3, 4]
    assert found["evaluations"] == [2, 4]


@pytest.mark.parametrize("engine", ENGINES)
def test_lora_on_every_linear_layer_in_fp32(engine: str, facts: Any, model: Path) -> None:
    found = facts(engine)
    config = json.loads((model / "config.json").read_text())
    rank = PROFILES["fast_dev"].lora_r
    assert found["targets"] == sorted(LORA_TARGET_MODULES)
    assert len(found["lora"]) == 2 * len(LORA_TARGET_MODULES) * config["num_hidden_layers"]
    for name, shape in found["lora"].items():
        assert (shape[0] if "lora_A" in name else shape[1]) == rank, name
    assert found["dtypes"] == ["torch.float32"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_is_what_a_trainer_resumes_from(engine: str, facts: Any) -> None:
    needed = {
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
        "tokenizer.json",
    }
    assert needed <= set(facts(engine)["checkpoint"])


@pytest.mark.parametrize("engine", ENGINES)
def test_it_generates_for_a_batch(engine: str, facts: Any) -> None:
    assert facts(engine)["generated"] == [4, 4]


@pytest.mark.parametrize("engine", ENGINES)
def test_peft_loads_the_adapter_on_the_plain_base(engine: str, facts: Any, model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(str(model))
    before = base(input_ids=torch.tensor([[5, 6, 7]])).logits.detach()
    adapted = PeftModel.from_pretrained(base, facts(engine)["adapter"])
    changed = adapted(input_ids=torch.tensor([[5, 6, 7]])).logits.detach()
    assert not torch.equal(before, changed), "the adapter does something"


@pytest.mark.gpu
@WITHOUT_GPU
def test_both_behave_alike(facts: Any) -> None:
    ours, other = facts("reference"), facts("unsloth")
    for name in ("step", "losses", "evaluations", "targets", "lora", "provenance"):
        assert ours[name] == other[name], name
    assert set(ours["checkpoint"]) == set(other["checkpoint"])
    assert ours["loss"] == pytest.approx(other["loss"], rel=0.05)
