"""The reference engine: transformers + PEFT + bitsandbytes NF4, on a CPU or any GPU.

The settings of the quantization are those of the QLoRA paper (arXiv:2305.14314): NF4 with double
quantization, LoRA on all linear layers.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from job.engines.accelerator import device, has_bf16
from job.engines.base import LoadedModel, TrainerClasses
from job.engines.dense import cpu_has_bf16, dense_on_cpu, make_dense
from job.engines.loading import not_loadable, provenance, quiet_libraries, refusing
from job.engines.tokenizer import faithful
from job.profiles import LORA_TARGET_MODULES, Hyperparameters

MOST_DENSE_BYTES = 2 << 30
"""Of de-quantized weights, in training on a CPU: models up to half a billion parameters (in fp32)
stay below. A constant, since a resumed attempt has to compute what the one before it did."""


class ReferenceEngine:
    """Keeps `job.engines.base.Engine`."""

    name = "reference"

    def __init__(self, trust_remote_code: bool = False) -> None:
        self._trust_remote_code = trust_remote_code

    def load(self, model_dir: Path, hyperparameters: Hyperparameters) -> LoadedModel:
        quiet_libraries()
        _import_bitsandbytes()
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
        from transformers import AutoTokenizer, set_seed

        lora = LoraConfig(
            r=hyperparameters.lora_r,
            lora_alpha=hyperparameters.lora_alpha,
            lora_dropout=hyperparameters.lora_dropout,
            target_modules=list(LORA_TARGET_MODULES),
            bias="none",
            task_type="CAUSAL_LM",
        )
        with refusing(model_dir):
            tokenizer = faithful(
                AutoTokenizer.from_pretrained(
                    str(model_dir),
                    local_files_only=True,
                    trust_remote_code=self._trust_remote_code,
                ),
                model_dir,
            )
            model = load_quantized(model_dir, self._trust_remote_code)
            disable_avx512_repacking(model)
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
            set_seed(hyperparameters.seed)  # the LoRA matrices start at random
            model = get_peft_model(model, lora)
        return LoadedModel(model, tokenizer, provenance(model, model_dir))

    def trainer_classes(self) -> TrainerClasses:
        from trl import SFTConfig, SFTTrainer

        return TrainerClasses(SFTTrainer, SFTConfig)

    def training_arguments(self) -> dict[str, Any]:
        import torch

        on_gpu = torch.cuda.is_available()
        bf16 = has_bf16() if on_gpu else cpu_has_bf16()
        return {
            "use_cpu": not on_gpu,
            "bf16": bf16,
            "fp16": on_gpu and not bf16,
            # Recomputing activations trades time for memory that only a GPU is short of.
            "gradient_checkpointing": on_gpu,
            "gradient_checkpointing_kwargs": {"use_reentrant": False} if on_gpu else None,
            "padding_free": False,
            # The head's logits only where there is a label: the same loss, less work.
            "loss_type": "chunked_nll",
        }

    def adopt(self, trainer: Any) -> None:
        import torch

        # TRL 1.14 casts the adapter of a quantized model to bf16 when the trainer is built, and
        # resuming loads it back as fp32: the resumed run would train in another precision.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.float32)
        if not torch.cuda.is_available():
            make_dense(trainer.model, MOST_DENSE_BYTES)

    def generating(self, model: Any) -> AbstractContextManager[None]:
        import torch

        if not torch.cuda.is_available():
            return dense_on_cpu(model)
        return torch.autocast("cuda", dtype=_compute_dtype())


def _import_bitsandbytes() -> None:
    """It hands functions to torch's compiler when it is imported, and none that a CPU calls: there
    the compiler's own import (1.5 s, an eighth of all) is spared."""
    import torch

    switch = "TORCHDYNAMO_DISABLE"
    if torch.cuda.is_available() or switch in os.environ:
        return
    os.environ[switch] = "1"
    try:
        import bitsandbytes  # noqa: F401
    finally:
        del os.environ[switch]


def disable_avx512_repacking(model: Any) -> None:
    """Keep bitsandbytes from re-packing 4-bit weights at the first eval-mode forward on CPU.

    The re-packed layers have no autograd kernel: training after any evaluation would go on with
    wrong gradients, without a word. Costs some generation speed on CPUs with AVX512-BF16.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def load_quantized(model_dir: Path, trust_remote_code: bool = False) -> Any:
    """The model in `model_dir` with its linear layers in NF4, all of whose weights are its own."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(
        str(model_dir), local_files_only=True, trust_remote_code=trust_remote_code
    )
    already = getattr(config, "quantization_config", None)
    if already is not None and not already.get("load_in_4bit"):
        found = f"its weights are quantized with {already.get('quant_method')}, not in 4 bits"
        raise not_loadable(model_dir, found)
    model, report = AutoModelForCausalLM.from_pretrained(
        str(model_dir),
        # Given as None, it would switch off what the folder's own config says.
        **({} if already else {"quantization_config": _nf4()}),
        dtype=_compute_dtype() if torch.cuda.is_available() else torch.float32,
        device_map={"": device()},
        attn_implementation="sdpa",
        local_files_only=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in the report, and refused below
    )
    if damage := _not_loaded(report) or _misshapen(model):
        more = f" and {len(damage) - 3} more" if len(damage) > 3 else ""
        raise not_loadable(model_dir, f"its weights lack {', '.join(damage[:3])}{more}")
    return model


def _not_loaded(report: dict[str, Any]) -> list[str]:
    """Weights that transformers has filled with random numbers, to go on."""
    return sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])


def _misshapen(model: Any) -> list[str]:
    """A model that is quantized takes weights of any shape, whatever its config says."""
    from torch.nn import Embedding, Linear

    found = []
    for name, module in model.named_modules():
        if isinstance(module, Linear):  # Linear4bit is one
            expected = (module.out_features, module.in_features)
        elif isinstance(module, Embedding):
            expected = (module.num_embeddings, module.embedding_dim)
        else:
            continue
        flat = getattr(module.weight, "quant_state", None)  # 4-bit weights are stored flat
        shape = tuple((flat or module.weight).shape)
        if shape != expected:
            found.append(f"{name}.weight of shape {expected} (found {shape})")
    return found


def _nf4() -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_compute_dtype(),
    )


def _compute_dtype() -> Any:
    import torch

    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if has_bf16() else torch.float16
