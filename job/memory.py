"""What a training takes of a GPU's memory, before there is a GPU: from the shapes in config.json.

Peak = 4-bit weights + embeddings + LoRA (weights, gradients, optimizer) + activations of the
longest micro-batch + what the loss holds + what CUDA itself takes. Each term names its source.
`benchmarks/gpu` measures how far off the sum is; before the first step the job tries the longest
micro-batch anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from job.errors import OutOfGpuMemory, Problem
from job.profiles import Hyperparameters

GB: Final = 10**9
GIB: Final = 1 << 30

_NF4_BYTES: Final = (4 + 0.127) / 8
"""A weight: 4 bits, and 0.127 for its block's constants, quantized too (arXiv:2305.14314, 3)."""
_HALF: Final = 2
"""Bytes of bf16 and fp16: Unsloth's embeddings and head, and activations under autocast."""
_FLOAT: Final = 4
"""LoRA's weights and gradients stay in fp32, in both engines."""
_OPTIMIZER_BYTES: Final[Mapping[str, float]] = {
    "adamw_8bit": 2 * (1 + _FLOAT / 256),  # two moments, a constant a block of 256
    "paged_adamw_8bit": 2 * (1 + _FLOAT / 256),
    "adamw_torch": 2 * _FLOAT,
    "adamw_torch_fused": 2 * _FLOAT,
    "paged_adamw_32bit": 2 * _FLOAT,
}
"""A trained parameter (arXiv:2110.02861 for 8 bits)."""
_LIVE_CHECKPOINTS: Final = 2
"""Layer inputs on the card at once: Unsloth moves them to the host and back as they are needed."""
_LOSS_TOKENS: Final = 256
"""Tokens whose logits are there at once: both engines compute the loss in chunks."""
_LOGIT_BYTES: Final = 3 * _FLOAT
"""A logit: itself, its log-probability and its gradient."""
_CUDA_BYTES: Final = 0.8 * GIB
"""Assumed: context, kernels and cuBLAS workspaces."""
_FRAGMENTATION: Final = 1.05
"""Assumed: what the allocator reserves and can't use."""

GPUS: Final[Mapping[str, float]] = {
    "T4": 15360 / 1024,
    "L4": 23034 / 1024,
    "A10G": 23028 / 1024,
    "A100 40 GB": 40960 / 1024,
    "A100 80 GB": 81920 / 1024,
    "H100": 81559 / 1024,
}
"""GiB as `nvidia-smi` shows them. T4 and older have no bf16: fp16 takes as much."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder of the Llama and Qwen kind, in elements."""

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    attention: int
    """Heads times the size of a head."""
    key_value: int
    """The same of the key-value heads."""
    tied: bool
    """Whether the head is the embedding."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """From config.json; None where it is no model of this kind."""
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            size = int(config.get("head_dim") or hidden // heads)
            return cls(
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                intermediate=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                attention=heads * size,
                key_value=int(config.get("num_key_value_heads") or heads) * size,
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear layers of one block: q, k, v, o, gate, up, down."""
        h, wide = self.hidden, self.intermediate
        return (
            (h, self.attention),
            (h, self.key_value),
            (h, self.key_value),
            (self.attention, h),
            (h, wide),
            (h, wide),
            (wide, h),
        )

    @property
    def parameters(self) -> int:
        """Weights of all matrices; the norms' few are left out."""
        blocks = self.layers * sum(ins * outs for ins, outs in self.matrices)
        return blocks + (1 if self.tied else 2) * self.vocabulary * self.hidden

    def lora_parameters(self, rank: int) -> int:
        """r × (inputs + outputs) of each linear layer (arXiv:2106.09685, 4.1)."""
        return self.layers * sum(rank * (ins + outs) for ins, outs in self.matrices)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes at the peak, by what holds them."""

    weights: float
    embeddings: float
    lora: float
    optimizer: float
    activations: float
    loss: float
    cuda: float

    @property
    def total(self) -> float:
        """Bytes."""
        parts: Iterable[float] = vars(self).values()
        return sum(parts) * _FRAGMENTATION

    @property
    def gib(self) -> float:
        return self.total / GIB

    def fitting(self) -> list[str]:
        """The cards of `GPUS` that have that much."""
        return [name for name, gib in GPUS.items() if self.gib <= gib]


def foresee(
    shape: Shape,
    hyperparameters: Hyperparameters,
    longest: int | None,
    gpu_memory: float | None,
    engine: str = "unsloth",
) -> str:
    """The estimate in words; `gpu_memory` is in GB, as cards are sold.

    Raises `OutOfGpuMemory` where not even a micro-batch of 1 fits that.
    """
    needed = estimate(shape, hyperparameters, longest, engine)
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in vars(needed).items())
    batch = hyperparameters.per_device_train_batch_size
    cards = ", ".join(needed.fitting()) or "none of " + ", ".join(GPUS)
    said = f"about {needed.gib:.1f} GiB at micro-batch {batch} ({parts}); fits {cards}"
    if gpu_memory is None or needed.total <= gpu_memory * GB:
        return said
    alone = replace(hyperparameters, per_device_train_batch_size=1)
    least = estimate(shape, alone, longest, engine)
    if least.total <= gpu_memory * GB:
        return f"{said}; on {gpu_memory:g} GB the job would go on with a smaller micro-batch"
    found = f"about {least.gib:.1f} GiB are needed at micro-batch 1, {gpu_memory:g} GB are there"
    hint = "lower FORGE_MAX_SEQ_LENGTH or FORGE_LORA_R, or take a smaller FORGE_MODEL"
    raise OutOfGpuMemory(Problem("GPU memory", found, hint))


def optimizer_bytes(optim: str) -> float:
    """Of the optimizer's state, a trained parameter."""
    return _OPTIMIZER_BYTES[optim]


def estimate(
    shape: Shape,
    hyperparameters: Hyperparameters,
    longest: int | None = None,
    engine: str = "unsloth",
) -> Estimate:
    """Of training; `longest` is the longest conversation in tokens, where it is known. The
    reference engine has embeddings and head in fp32 (PEFT's `prepare_model_for_kbit_training`)."""
    h = hyperparameters
    tokens = h.per_device_train_batch_size * min(longest or h.max_seq_length, h.max_seq_length)
    linear = shape.layers * sum(ins * outs for ins, outs in shape.matrices)
    trained = shape.lora_parameters(h.lora_r)
    embedded = _FLOAT if engine == "reference" else _HALF
    dequantized = _HALF * max(ins * outs for ins, outs in shape.matrices)
    return Estimate(
        weights=linear * _NF4_BYTES + dequantized,
        embeddings=embedded * shape.vocabulary * shape.hidden * (1 if shape.tied else 2),
        lora=2 * _FLOAT * trained,
        optimizer=trained * optimizer_bytes(h.optim),
        activations=tokens * _activation_bytes_a_token(shape, h),
        loss=min(_LOSS_TOKENS, tokens) * shape.vocabulary * _LOGIT_BYTES,
        cuda=_CUDA_BYTES,
    )


def _activation_bytes_a_token(shape: Shape, h: Hyperparameters) -> float:
    """With every layer's input checkpointed, one layer's inside is there at a time.

    The terms are those of arXiv:2205.05198, 4.1, for a gated MLP and an attention that keeps no
    scores: inputs of norms, attention and MLP; q, k, v and the attention's output; gate, up, their
    product, and the gradients of the widest two. Dropout keeps a copy of each LoRA input.
    """
    inside = 6 * shape.hidden + 2 * shape.attention + 2 * shape.key_value + 5 * shape.intermediate
    if h.lora_dropout:
        inside += sum(ins for ins, _ in shape.matrices)
    checkpoints = _LIVE_CHECKPOINTS * shape.hidden
    return float(_HALF * (inside + checkpoints))
