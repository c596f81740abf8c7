"""What a run takes of disk and memory: from the model's shape, before the model is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple

from job.config import Settings
from job.engines import text_config
from job.errors import JobError
from job.memory import Shape, optimizer_bytes
from job.model_name import ModelName
from job.storage import NotFound, open_storage

_FLOAT: Final = 4
"""LoRA weights are saved in fp32."""

_KNOWN: Final[Mapping[str, tuple[float, int]]] = {
    "unsloth/Qwen2.5-14B-Instruct-bnb-4bit": (9.9e9, 4_300_800),
    "unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit": (5.7e9, 2_621_440),
    "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit": (5.7e9, 2_621_440),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (0.27e9, 305_280),
}
"""The families' default models: bytes of the weights, and trained parameters a LoRA rank. Both
follow from the shapes in config.json, which a test holds them to; a hub would need a network."""

_WEIGHTS: Final = "*.safetensors"

_LOCAL_CHECKPOINTS: Final = 3
"""On the disk at once: one is uploaded, a newer one waits, the next is written."""
_LOCAL_ADAPTERS: Final = 2
"""The one that is published, and the one that is read back to verify it."""
_DISK_BESIDES: Final = 2e9
"""Assumed: the data as they are and as tokens, compiled kernels, reports."""

_GPU_PROCESS: Final = 4e9
"""Assumed: Python, torch, CUDA's libraries and context, Unsloth's buffers in host memory."""
_CPU_PROCESS: Final = 1.5e9
"""Assumed: the same without CUDA."""


@dataclass(frozen=True)
class Needs:
    """Bytes; None where only a network or the model itself could tell."""

    download: float | None = None
    """Of the model, on its way to the work volume."""
    weights: float | None = None
    checkpoint: float | None = None
    adapter: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Needs:
        model = _model(ModelName.parse(settings.base_model))
        if model.a_rank is None:
            return cls(model.download, model.weights, None, None)
        h = settings.hyperparameters()
        trained = model.a_rank * h.lora_r
        checkpoint = trained * (_FLOAT + optimizer_bytes(h.optim))
        return cls(model.download, model.weights, checkpoint, trained * _FLOAT)

    @property
    def disk(self) -> float:
        """Of the work volume: at least, where something isn't known."""
        checkpoints = _LOCAL_CHECKPOINTS * (self.checkpoint or 0)
        adapters = _LOCAL_ADAPTERS * (self.adapter or 0)
        return (self.download or 0) + checkpoints + adapters + _DISK_BESIDES

    def memory(self, *, gpu: bool, processes: int = 1) -> float:
        """Of the host, that can't be given back: a checkpoint is there once while it is saved,
        however many processes have the same weights."""
        return processes * (_GPU_PROCESS if gpu else _CPU_PROCESS) + (self.checkpoint or 0)


class _Model(NamedTuple):
    download: float | None = None
    weights: float | None = None
    a_rank: int | None = None
    """Trained parameters a LoRA rank."""


def _model(named: ModelName) -> _Model:
    if named.kind == "folder":
        folder = Path(named.name)
        sizes = [path.stat().st_size for path in folder.glob(_WEIGHTS)]
        return _Model(0.0, sum(sizes), _a_rank(text_config(folder)))
    if named.kind == "mirror":
        return _mirrored(named.name)
    weights, a_rank = _KNOWN.get(named.name, (None, None))
    return _Model(weights, weights, a_rank)


def _mirrored(uri: str) -> _Model:
    try:
        storage = open_storage(uri)
        found = [info for info in storage.list() if PurePath(info.key).match(_WEIGHTS)]
        config = json.loads(storage.read("config.json")[0])
    except (JobError, NotFound, ValueError):
        # The run will say so of its model; here it is one number that isn't known.
        return _Model()
    size = sum(info.size for info in found)
    text = config.get("text_config") or config if isinstance(config, dict) else {}
    return _Model(size, size, _a_rank(text))


def _a_rank(config: Mapping[str, Any]) -> int | None:
    shape = Shape.of(config)
    return shape.lora_parameters(1) if shape else None
