"""What a CPU can refuse of the exports before anything is trained; all of it at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from job.config import Settings
from job.engines import ModelSource, read_config, text_config
from job.errors import AccessDenied, Problem, SettingsError
from job.exports import gguf, hub
from job.exports.room import COPIES, GGUF_COPIES
from job.exports.room import problems as lacking_room
from job.ledger import RunRecord
from job.memory import Shape
from job.model import BaseModel
from job.storage import Observer

MERGED: Final = "merged_16bit"
GGUF: Final = "gguf"
HUB: Final = "hub"


def wanted(settings: Settings) -> tuple[str, ...]:
    """Names of the exports, in the order in which they are made."""
    return (*settings.export, *([HUB] if settings.push_to_hub else []))


def source_of(
    settings: Settings,
    model: BaseModel,
    cache_dir: Path,
    observer: Observer | None = None,
    alive: Callable[[], None] = lambda: None,
) -> ModelSource:
    """Where the 16-bit weights come from that the adapter is merged into. `observer` and `alive`
    are told as they arrive."""
    if settings.export_base_model is None:
        return model.source  # it has its own
    return ModelSource(settings.export_base_model, cache_dir, observer=observer, alive=alive)


def check(settings: Settings, model: BaseModel, work_dir: Path, *, trains_here: bool = True) -> str:
    """What will be made, in words.

    Raises `SettingsError` or `AccessDenied` with everything that stands against it, and
    `Unavailable` where the hub can't be asked. What this machine lacks stands against it only
    where the run `trains_here`.
    """
    problems = list(_merging(settings, model, work_dir)) if settings.export else []
    if trains_here:
        problems += lacking(settings, model, work_dir)
    if GGUF in settings.export and not problems:
        source = source_of(settings, model, work_dir)
        problems += gguf.problems(settings, source.tokenizer_dir(), model.source.tokenizer_dir())
    problems += _offline(settings)
    denied = list(hub.denied(settings)) if settings.push_to_hub and not problems else []
    if problems:
        raise SettingsError(problems)
    if denied:
        raise AccessDenied(denied)
    return ", ".join(wanted(settings)) or "none wanted"


def lacking(settings: Settings, model: BaseModel, work_dir: Path) -> list[Problem]:
    """What this machine has too little of for the exports: disk, memory."""
    if not settings.export:
        return []
    shape = Shape.of(text_config(source_of(settings, model, work_dir).tokenizer_dir()))
    if shape is None:
        return []
    copies = GGUF_COPIES if GGUF in settings.export else COPIES
    return list(lacking_room(shape.parameters * 2, work_dir, copies=copies))


def refuse_new(settings: Settings, record: RunRecord) -> None:
    """A finished run is not run again, so it makes no exports that it was not asked for before."""
    if new := [name for name in wanted(settings) if name not in record.exports]:
        found = f"the run is finished, and was not asked for {', '.join(new)} while it ran"
        hint = "drop the setting, or start a run with another FORGE_RUN_ID"
        where = "FORGE_EXPORT" if new != [HUB] else "FORGE_PUSH_TO_HUB"
        raise SettingsError(Problem(where, found, hint))


def _offline(settings: Settings) -> list[Problem]:
    if settings.push_to_hub is None or not hub.offline(os.environ):
        return []
    hint = "unset HF_HUB_OFFLINE, or this setting"
    return [Problem("FORGE_PUSH_TO_HUB", "the hub is out of reach in offline mode", hint)]


def _merging(settings: Settings, model: BaseModel, work_dir: Path) -> Iterator[Problem]:
    source = source_of(settings, model, work_dir)
    folder = source.tokenizer_dir()
    shape = Shape.of(text_config(folder))
    own = settings.export_base_model is None
    where = "FORGE_EXPORT" if own else "FORGE_EXPORT_BASE_MODEL"
    if "quantization_config" in read_config(folder):
        hint = "name the model with the same weights in 16 bits in FORGE_EXPORT_BASE_MODEL"
        yield Problem(where, f"{source.named} has quantized weights, which can't be merged", hint)
    elif not own and (shape is None or shape != Shape.of(model.config)):
        hint = f"name the one that {settings.base_model} was made from"
        yield Problem(where, f"{source.named} has another shape than the model", hint)
