"""The run's model: whether it can be had from here, with these credentials."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from job.config import Settings
from job.engines import ModelSource
from job.preflight.doctor.wanted import Wanted, existing

_PREFIX: Final = "forge-doctor-"


def model(settings: Settings, wanted: Wanted) -> str:
    """Fetch what is small of it: a hub tells of a gated model without giving a file of it.

    Raises what the run would end with at its start, or once it needs the weights.
    """
    with _cache(wanted) as folder:
        found = [_looked_for(name, folder, settings) for name in _models(settings)]
    return "; ".join(found)


def _models(settings: Settings) -> list[str]:
    """That of the exports too: it is needed when all GPU hours are spent."""
    merged = settings.export_base_model if settings.export else None
    return [settings.base_model, *([merged] if merged else [])]


def _looked_for(name: str, folder: Path, settings: Settings) -> str:
    source = ModelSource(name, folder, with_code=settings.trusts_model)
    source.refuse_out_of_reach()
    return f"{source.named} at {source.revision[:12]} can be read, its weights are there"


@contextmanager
def _cache(wanted: Wanted) -> Iterator[Path]:
    """The folder of the run, where an earlier attempt has left what needs no hub again; else one
    that is gone afterwards."""
    kept = wanted.kept_dir
    if kept is not None and kept.is_dir() and os.access(kept, os.W_OK | os.X_OK):
        yield kept
        return
    with _temporary(existing(wanted.work_dir)) as folder:
        yield Path(folder)


def _temporary(volume: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix=_PREFIX, dir=volume)
    except OSError:  # which is told of the folders
        return tempfile.TemporaryDirectory(prefix=_PREFIX)
