"""The seam between the job and what loads a model: five verbs, kept by two engines.

An engine gives TRL's `SFTTrainer` a 4-bit model with LoRA layers and a tokenizer; everything
after that (data, training arguments, checkpoints, evaluation, publishing) is engine-independent.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from job.profiles import Hyperparameters


@dataclass(frozen=True)
class TrainerClasses:
    """TRL's classes as the engine wants them used (Unsloth replaces them when imported)."""

    trainer: type[Any]
    config: type[Any]


@dataclass(frozen=True)
class LoadedModel:
    """A PEFT model ready to train, its tokenizer, and what was really loaded."""

    model: Any
    tokenizer: Any
    provenance: dict[str, str]


class Engine(Protocol):
    """Implementations import torch and its friends in their methods, never at import."""

    @property
    def name(self) -> str: ...

    def load(self, model_dir: Path, hyperparameters: Hyperparameters) -> LoadedModel:
        """Load `model_dir` in NF4 and add LoRA layers.

        Raises `SettingsError` for a folder that holds no model of the kind, `OutOfGpuMemory`.
        """
        ...

    def trainer_classes(self) -> TrainerClasses: ...

    def training_arguments(self) -> dict[str, Any]:
        """The arguments of `SFTConfig` that depend on the engine: precision, checkpointing."""
        ...

    def adopt(self, trainer: Any) -> None:
        """Last corrections to a trainer that has just been built."""
        ...

    def generating(self, model: Any) -> AbstractContextManager[None]:
        """Inside `with`, the trained model generates as fast as the engine can make it."""
        ...
