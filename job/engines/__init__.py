"""What loads a model for training. Importing this costs nothing: engines import torch when used."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace

from job.engines.accelerator import (
    DRIVER,
    Card,
    card,
    has_accelerator,
    is_out_of_memory,
    is_visible,
)
from job.engines.base import Engine, LoadedModel, TrainerClasses
from job.engines.reference import ReferenceEngine
from job.engines.source import ModelSource, position_limit, read_config, text_config
from job.engines.unsloth import UnslothEngine, cache_folders, prepare_environment
from job.errors import CardLost, Problem, SettingsError

_log = logging.getLogger(__name__)

_OTHER_NODE = (
    "an earlier attempt of this run had a card: the next one may get another node; cordon this one "
    "if it stays so"
)

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
    "is_out_of_memory",
    "position_limit",
    "prepare_environment",
    "read_config",
    "text_config",
]


def choose_engine(name: str, trust_remote_code: bool = False, had_card: bool = False) -> Engine:
    """The engine that `FORGE_ENGINE` names; `auto` takes Unsloth where an accelerator is.

    Raises `SettingsError` where `unsloth` is asked for and there is none, and where there is one
    that can't be used; `CardLost` instead where the run `had_card` before, as another node may
    have one again.
    """
    try:
        accelerator = _accelerator(name, had_card)
    except SettingsError as error:
        if not had_card:
            raise
        raise CardLost(replace(p, hint=_OTHER_NODE) for p in error.problems) from error
    if name == "auto" and accelerator and not _has_unsloth():
        _log.warning("there is a GPU but no Unsloth: the reference engine is slower, and larger")
    if name == "unsloth" or (name == "auto" and accelerator and _has_unsloth()):
        engine = UnslothEngine(trust_remote_code)
        # Now, before the training modules: they import parts of what it patches.
        engine.import_first()
        return engine
    return ReferenceEngine(trust_remote_code)


def _accelerator(name: str, had_card: bool) -> bool:
    found = has_accelerator()
    if not found and (name == "unsloth" or (name == "auto" and had_card and is_visible())):
        said, hint = f"{name} needs a GPU, and torch sees none", "use a GPU node, or `reference`"
        raise SettingsError(Problem("FORGE_ENGINE", said, hint))
    return found


def _has_unsloth() -> bool:
    return importlib.util.find_spec("unsloth") is not None
