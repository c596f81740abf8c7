"""4-bit layers on a CPU: de-quantized once, instead of at each token or micro-batch.

Generation passes each weight hundreds of times, and training twice a micro-batch. On a CPU it is
time that is short, not memory: small models stay dense, larger ones only while they generate.
The numbers are those of the NF4 weights; only the rounding of products may differ.
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

    swapped = [(module, module.base_layer) for module in _quantized(model)]
    make_dense(model)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16) if cpu_has_bf16() else nullcontext():
            yield
    finally:
        for module, quantized in swapped:
            module.base_layer = quantized


def make_dense(model: Any, most_bytes: int | None = None) -> bool:
    """Put the LoRA layers of `model` on dense copies of their 4-bit weights; those are let go.

    False, and nothing is changed, where the copies would take more than `most_bytes`.
    """
    import torch

    dtype = torch.bfloat16 if cpu_has_bf16() else torch.float32
    layers = _quantized(model)
    size = sum(layer.base_layer.weight.quant_state.shape.numel() for layer in layers)
    if most_bytes is not None and size * dtype.itemsize > most_bytes:
        return False
    for layer in layers:
        layer.base_layer = _dense(layer.base_layer, dtype)
    return True


def _quantized(model: Any) -> list[Any]:
    from bitsandbytes.nn import Linear4bit

    return [m for m in model.modules() if isinstance(getattr(m, "base_layer", None), Linear4bit)]


def _dense(quantized: Any, dtype: Any) -> Any:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weight = dequantize_4bit(quantized.weight.data, quantized.weight.quant_state).to(dtype)
    out_features, in_features = weight.shape
    dense = torch.nn.Linear(in_features, out_features, bias=False, device="meta")
    dense.weight = torch.nn.Parameter(weight, requires_grad=False)
    if quantized.bias is not None:
        dense.bias = torch.nn.Parameter(quantized.bias.data.to(dtype), requires_grad=False)
    if dtype != torch.float32:
        dense.register_forward_hook(_in_fp32)
    return dense


def _in_fp32(_layer: Any, _inputs: Any, output: Any) -> Any:
    """As the 4-bit layer gives it. To a sum in bf16 an adapter adds nothing while it is young: its
    part is below the last digit. The loss of early steps stayed 10 to 20% above fp32's."""
    return output.float()
