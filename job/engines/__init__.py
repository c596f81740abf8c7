"""What loads a model for training. Importing this costs nothing: engines import torch when used."""

from __future__ import annotations

import importlib.util
import logging

from job.engines.accelerator import DRIVER, Card, card, has_accelerator
from job.engines.base import Engine, LoadedModel, TrainerClasses
from job.engines.reference import ReferenceEngine
from job.engines.source import ModelSource, position_limit, read_config, text_config
from job.engines.unsloth import UnslothEngine, cache_folders, prepare_environment
from job.errors import Problem, SettingsError

_log = logging.getLogger(__name__)

__all__ = [
    "DRIVER",
    "Card",
    "Engine",
    "LoadedModel",
    "ModelSource",
    "ReferenceEngine",
    "TrainerClasses",
    "UnslothEngine",
    "cache_folders",
    "card",
    "choose_engine",
    "position_limit",
    "prepare_environment",
    "read_config",
    "text_config",
]


def choose_engine(name: str, trust_remote_code: bool = False) -> Engine:
    """The engine that `FORGE_ENGINE` names; `auto` takes Unsloth where an accelerator is.

    Raises `SettingsError` where `unsloth` is asked for and there is none, and where there is one
    that can't be used.
    """
    accelerator = has_accelerator()
    if name == "unsloth" and not accelerator:
        found, hint = "unsloth needs a GPU, and torch sees none", "use a GPU node, or `reference`"
        raise SettingsError(Problem("FORGE_ENGINE", found, hint))
    if name == "auto" and accelerator and not _has_unsloth():
        _log.warning("there is a GPU but no Unsloth: the reference engine is slower, and larger")
    if name == "unsloth" or (name == "auto" and accelerator and _has_unsloth()):
        engine = UnslothEngine(trust_remote_code)
        # Now, before the training modules: they import parts of what it patches.
        engine.import_first()
        return engine
    return ReferenceEngine(trust_remote_code)


def _has_unsloth() -> bool:
    return importlib.util.find_spec("unsloth") is not None
