"""What a run's data are made of: objects that were found, pinned and brought here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst")


@dataclass(frozen=True)
class DataObject:
    """Which bytes exactly."""

    uri: str
    size: int
    """Bytes as stored."""
    etag: str | None
    """`None` for a local file."""
    version_id: str | None
    sha256: str


@dataclass(frozen=True)
class DataFile:
    """A data object and where its bytes lie on this machine."""

    source: DataObject
    path: Path


@dataclass(frozen=True)
class Found:
    """A data object that exists, its bytes not read yet."""

    uri: str
    size: int
    etag: str | None = None
    """`None` for a local file, which is read where it is."""
    version_id: str | None = None
