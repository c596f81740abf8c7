"""A folder's manifest: every file with its size and SHA-256, so that a torn or altered copy shows.

The same format serves checkpoints and the adapter: `manifest.json` lies beside the files it lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import BaseModel, ConfigDict

MANIFEST_NAME = "manifest.json"
_READ_BYTES: Final = 1 << 20


class Rejected(Exception):
    """A stored folder that must not be used; the message says why."""


class FileEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    """Bytes."""
    sha256: str


class Manifest(BaseModel):
    """What a folder holds. Paths are relative, with '/'."""

    model_config = ConfigDict(extra="allow")

    schema_version: int = 1
    step: int
    files: dict[str, FileEntry]

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.files.values())

    def serialize(self) -> bytes:
        return self.model_dump_json(indent=1).encode()


def entry_of(path: Path, alive: Callable[[], None] = lambda: None) -> FileEntry:
    """Hashes the file."""
    return FileEntry(size=path.stat().st_size, sha256=sha256_file(path, alive))


def parse(data: bytes, expected_sha256: str) -> Manifest:
    """Raises `Rejected` if the bytes aren't the recorded ones or name a path outside the folder."""
    if hashlib.sha256(data).hexdigest() != expected_sha256:
        raise Rejected(f"{MANIFEST_NAME} is not the one that was committed")
    manifest = Manifest.model_validate_json(data)
    for name in manifest.files:
        path = PurePosixPath(name)
        tricky = not path.parts or ".." in path.parts or any(c in name for c in "\\\0")
        if tricky or path.is_absolute() or path.as_posix() != name:
            raise Rejected(f"{MANIFEST_NAME} names a path outside the folder: {name!r}")
    return manifest


def verify_file(path: Path, entry: FileEntry, alive: Callable[[], None] = lambda: None) -> None:
    """Raises `Rejected` unless the file has the recorded size and content."""
    size = path.stat().st_size
    if size != entry.size:
        raise Rejected(f"{path.name} has {size} bytes, {entry.size} were committed")
    if sha256_file(path, alive) != entry.sha256:
        raise Rejected(f"{path.name} has another SHA-256 than was committed")


def sha256_file(path: Path, alive: Callable[[], None] = lambda: None) -> str:
    """`alive` is called with each piece: a model's weights take minutes."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            alive()
    return digest.hexdigest()


def files_of(folder: Path) -> Iterator[Path]:
    """What a manifest of `folder` lists: all files below it, links and a manifest left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path != folder / MANIFEST_NAME:
            yield path
