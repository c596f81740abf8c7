"""Faster answers on a CPU: 4-bit layers are de-quantized once, instead of at each token.

Training can't do that (its memory is the point of QLoRA); generation passes each weight hundreds
of times. The numbers are those of the NF4 weights; only the rounding of products may differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices natively: about four times fp32's rate here."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))


@contextmanager
def dense_on_cpu(model: Any) -> Iterator[None]:
    """Inside `with`, the LoRA layers of `model` stand on dense copies of their 4-bit weights."""
    import torch
    from bitsandbytes.nn import Linear4bit

    bf16 = cpu_has_bf16()
    swapped = [
        (module, module.base_layer)
        for module in model.modules()
        if isinstance(getattr(module, "base_layer", None), Linear4bit)
    ]
    for module, quantized in swapped:
        module.base_layer = _dense(quantized, torch.bfloat16 if bf16 else torch.float32)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext():
            yield
    finally:
        for module, quantized in swapped:
            module.base_layer = quantized


def _dense(quantized: Any, dtype: Any) -> Any:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(quantized.weight.data, quantized.weight.quant_state).to(dtype)
    out_features, in_features = weight.shape
    dense = torch.nn.Linear(in_features, out_features, bias=False, device="meta")
    dense.weight = torch.nn.Parameter(weight, requires_grad=False)
    if quantized.bias is not None:
        dense.bias = torch.nn.Parameter(quantized.bias.data.to(dtype), requires_grad=False)
    return dense
