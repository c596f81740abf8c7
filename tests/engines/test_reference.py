"""The reference engine on a tiny real model: real NF4, LoRA as asked, right gradients, quiet."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from bitsandbytes.nn import Linear4bit

from job.engines import LoadedModel, ReferenceEngine, reference
from job.engines import dense as dense_module
from job.engines.dense import make_dense
from job.errors import SettingsError
from job.profiles import LORA_TARGET_MODULES, PROFILES
from tests.tiny import build_model

HYPERPARAMETERS = replace(PROFILES["fast_dev"], lora_r=4, lora_alpha=12, lora_dropout=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return ReferenceEngine().load(folder, HYPERPARAMETERS)


def projections(model: Any) -> dict[str, Any]:
    """Every wrapped projection by its full name."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in LORA_TARGET_MODULES
    }


def lora_weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def test_every_projection_is_nf4_with_double_quantization(loaded: LoadedModel) -> None:
    found = projections(loaded.model)
    assert len(found) == 2 * len(LORA_TARGET_MODULES)
    for module in found.values():
        base = module.base_layer
        assert isinstance(base, Linear4bit)
        assert base.weight.dtype == torch.uint8
        assert base.weight.numel() == base.in_features * base.out_features // 2
        assert base.weight.quant_state.quant_type == "nf4"
        assert base.weight.quant_state.nested


def test_lora_has_the_shape_that_was_asked_for(loaded: LoadedModel) -> None:
    for module in projections(loaded.model).values():
        assert module.lora_A["default"].weight.shape == (4, module.in_features)
        assert module.lora_B["default"].weight.shape == (module.out_features, 4)
        assert module.lora_dropout["default"].p == 0.1
        assert module.scaling["default"] == 12 / 4
    config = loaded.model.peft_config["default"]
    assert (config.bias, config.task_type) == ("none", "CAUSAL_LM")


def test_only_lora_trains_and_in_fp32(loaded: LoadedModel) -> None:
    trainable = lora_weights(loaded.model)
    assert len(trainable) == 2 * 2 * len(LORA_TARGET_MODULES)
    assert all("lora_" in name for name in trainable)
    assert {weight.dtype for weight in trainable.values()} == {torch.float32}


def test_lora_starts_from_the_seed_and_from_nothing_else(folder: Path) -> None:
    def start(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        return lora_weights(
            ReferenceEngine().load(folder, replace(HYPERPARAMETERS, seed=seed)).model
        )

    first, again, other = start(1, noise=7), start(1, noise=8), start(2, noise=7)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if "lora_A" in name]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_a_folder_that_is_nf4_already_is_taken_as_it_is(
    folder: Path, loaded: LoadedModel, tmp_path: Path
) -> None:
    """The form in which the families' base models are published."""
    plain = ReferenceEngine().load(folder, HYPERPARAMETERS)
    plain.model.unload().save_pretrained(str(tmp_path))
    plain.tokenizer.save_pretrained(str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    again = ReferenceEngine().load(tmp_path, HYPERPARAMETERS)
    before, after = projections(loaded.model), projections(again.model)
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name].base_layer.weight, after[name].base_layer.weight)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Of the LoRA weights, for one batch, with what is random switched off."""
    ids = torch.arange(10, 74).reshape(2, 32)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def generate(model: Any) -> None:
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.arange(10, 42).reshape(1, 32))


def relative_error(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    difference = sum(float((before[name] - after[name]).square().sum()) for name in before)
    size = sum(float(gradient.square().sum()) for gradient in before.values())
    return float((difference / size) ** 0.5)


def trained_a_little(folder: Path) -> Any:
    """A model whose LoRA matrices aren't zero: all of them then have a gradient."""
    model = ReferenceEngine().load(folder, HYPERPARAMETERS).model
    generator = torch.Generator().manual_seed(0)
    for name, weight in lora_weights(model).items():
        if "lora_B" in name:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def test_an_evaluation_leaves_the_gradients_as_they_were(folder: Path) -> None:
    model = trained_a_little(folder)
    before = gradients(model)
    assert min(float(gradient.abs().max()) for gradient in before.values()) > 0
    generate(model)
    assert relative_error(before, gradients(model)) == 0.0


@pytest.mark.skipif(
    not has_avx512bf16(), reason="bitsandbytes re-packs 4-bit weights on AVX512-BF16 CPUs only"
)
@pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered:UserWarning")
def test_without_the_switch_an_evaluation_would_falsify_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap is still there, so the test above can fail: else drop the switch, it costs speed."""
    monkeypatch.setattr(reference, "disable_avx512_repacking", lambda model: None)
    model = trained_a_little(folder)
    before = gradients(model)
    generate(model)
    assert relative_error(before, gradients(model)) > 0.1


Damage = Callable[[Path], object]


def with_config(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def without_tensor(name: str) -> Damage:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "model.safetensors"
        tensors = load_file(path)
        del tensors[name]
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(lambda f: (f / "model.safetensors").unlink(), "no file", id="no weights"),
        pytest.param(cut_short, "not fully covered", id="weights cut short"),
        pytest.param(
            lambda f: (f / "model.safetensors").write_bytes(b"garbage" * 9), "header", id="garbage"
        ),
        pytest.param(
            without_tensor("model.layers.1.mlp.up_proj.weight"),
            "lack model.layers.1.mlp.up_proj.weight",
            id="a projection is missing",
        ),
        pytest.param(
            without_tensor("model.norm.weight"), "lack model.norm.weight", id="a norm is missing"
        ),
        pytest.param(
            with_config(intermediate_size=256),
            "lack model.layers.0.mlp.gate_proj.weight of shape (256, 64)",
            id="of another size",
        ),
        pytest.param(
            with_config(vocab_size=700),
            "lack model.embed_tokens.weight of shape (700, 64)",
            id="vocabulary",
        ),
        pytest.param(with_config(model_type="t5"), "T5Config", id="not causal"),
        pytest.param(with_config(model_type="nonsense"), "nonsense", id="unknown type"),
        pytest.param(
            with_config(quantization_config={"quant_method": "gptq", "bits": 4}),
            "quantized with gptq",
            id="another quantization",
        ),
        pytest.param(
            lambda f: [path.unlink() for path in f.glob("tokenizer*")],
            "tokenizer",
            id="no tokenizer",
        ),
        pytest.param(
            lambda f: (f / "tokenizer.json").write_text("{"), "line 1", id="broken tokenizer"
        ),
    ],
)
def test_a_folder_that_is_no_model_is_a_bad_setting(
    folder: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    damage(broken)
    with pytest.raises(SettingsError, match="FORGE_MODEL") as refused:
        ReferenceEngine().load(broken, HYPERPARAMETERS)
    assert str(broken) in str(refused.value)
    assert said in str(refused.value)


def test_a_model_without_such_projections_is_a_bad_setting(tmp_path: Path, folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=600, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(str(tmp_path))
    for path in folder.glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(SettingsError, match="q_proj"):
        ReferenceEngine().load(tmp_path, HYPERPARAMETERS)


_LOAD = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO)
from job.engines import ReferenceEngine
from job.profiles import PROFILES
loaded = ReferenceEngine().load(Path(sys.argv[1]), PROFILES["fast_dev"])
import torch
loaded.model.eval()(input_ids=torch.tensor([[5, 6]]))
import datasets
datasets.Dataset.from_dict({"x": [1, 2]}).map(lambda row: row)
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("anything else")
"""


@pytest.fixture(scope="module")
def stderr(folder: Path) -> str:
    command = [sys.executable, "-c", _LOAD, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stderr


def test_loading_is_quiet(stderr: str) -> None:
    assert "it/s" not in stderr
    assert "examples/s" not in stderr
    assert "kernels-community" not in stderr


def test_other_warnings_of_the_libraries_still_come_through(stderr: str) -> None:
    assert "anything else" in stderr


@pytest.mark.parametrize(("bf16", "most_apart"), [(False, 1e-4), (True, 2e-2)])
def test_dense_copies_train_as_the_4_bit_layers_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bf16: bool, most_apart: float
) -> None:
    """In both of the precisions that a CPU may have; torch computes bf16 on any."""
    monkeypatch.setattr(dense_module, "cpu_has_bf16", lambda: bf16)
    ids = torch.arange(3, 35).reshape(2, 16)

    def step(dense: bool) -> tuple[float, dict[str, torch.Tensor]]:
        model = ReferenceEngine().load(folder, HYPERPARAMETERS).model.train()
        for name, weight in lora_weights(model).items():
            if "lora_B" in name:  # it starts at zero, which would hide the base's part in A
                weight.fill_(0.01)
        if dense:
            assert make_dense(model)
            assert not any(isinstance(m, Linear4bit) for m in model.modules())
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):  # as the Trainer has it
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return loss.item(), grads

    loss, gradients = step(dense=False)
    dense_loss, dense_gradients = step(dense=True)
    assert dense_loss == pytest.approx(loss, rel=most_apart)
    assert gradients.keys() == dense_gradients.keys()
    for name, gradient in gradients.items():
        apart = (dense_gradients[name] - gradient).norm() / gradient.norm()
        assert apart < most_apart, name


def test_what_a_young_adapter_adds_is_not_rounded_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the CPU has bf16: beside the base's part of a sum it is smaller than bf16's digits."""
    monkeypatch.setattr(dense_module, "cpu_has_bf16", lambda: True)
    model = ReferenceEngine().load(folder, HYPERPARAMETERS).model.eval()
    assert make_dense(model)
    layer = next(m for m in model.modules() if hasattr(m, "lora_A"))
    torch.manual_seed(0)
    x = torch.randn(64, layer.base_layer.weight.shape[1])
    layer.lora_B["default"].weight.data.normal_(0, 1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        part = layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
        base = layer.base_layer(x)
        added = layer(x) - base
    assert part.float().norm() < base.float().norm() / 256
    assert (added - part).norm() < part.float().norm() / 50


def test_a_large_model_keeps_its_4_bit_layers(folder: Path) -> None:
    model = ReferenceEngine().load(folder, HYPERPARAMETERS).model
    assert not make_dense(model, most_bytes=1000)
    assert any(isinstance(m, Linear4bit) for m in model.modules())
