"""What loads a model for training. Importing this costs nothing: engines import torch when used."""

from __future__ import annotations

import importlib.util

from job.engines.base import Engine, LoadedModel, TrainerClasses
from job.engines.reference import ReferenceEngine
from job.engines.source import ModelSource, position_limit
from job.engines.unsloth import UnslothEngine, prepare_environment
from job.errors import Problem, SettingsError

__all__ = [
    "Engine",
    "LoadedModel",
    "ModelSource",
    "ReferenceEngine",
    "TrainerClasses",
    "UnslothEngine",
    "choose_engine",
    "position_limit",
    "prepare_environment",
]


def choose_engine(name: str) -> Engine:
    """The engine that `FORGE_ENGINE` names; `auto` takes Unsloth where an accelerator is.

    Raises `SettingsError` where `unsloth` is asked for and there is none.
    """
    if name == "unsloth" and not _has_accelerator():
        found, hint = "unsloth needs a GPU, and torch sees none", "use a GPU node, or `reference`"
        raise SettingsError(Problem("FORGE_ENGINE", found, hint))
    if name == "unsloth" or (name == "auto" and _has_accelerator() and _has_unsloth()):
        return UnslothEngine()
    return ReferenceEngine()


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_unsloth() -> bool:
    return importlib.util.find_spec("unsloth") is not None
