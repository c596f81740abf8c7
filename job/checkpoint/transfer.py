"""Folders with a manifest, to and from storage: the manifest is written last and read first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from job.checkpoint.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    Rejected,
    entry_of,
    files_of,
    parse,
    verify_file,
)
from job.checkpoint.parallel import in_parallel
from job.storage.base import Conflict, NotFound, Storage
from job.storage.cancellation import Cancellation


@dataclass(frozen=True)
class StoredFolder:
    """A folder that is wholly in storage; it exists for the run once `run.json` names it."""

    key: str
    manifest_sha256: str
    bytes: int


def upload_folder(
    storage: Storage, key: str, folder: Path, step: int, cancellation: Cancellation | None = None
) -> StoredFolder:
    """Hash and upload a folder below `key` (which ends in '/'), the manifest last.

    Raises the storage's errors, and `Cancelled`; then what is below `key` is of no use.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in files_of(folder)}
    # The largest first: what takes longest should not start last.
    names = sorted(paths, key=lambda name: (-paths[name].stat().st_size, name))

    def upload(name: str, cancellation: Cancellation) -> None:
        storage.upload(key + name, paths[name], cancellation=cancellation)

    def entry(name: str, _: Cancellation) -> FileEntry:
        return entry_of(paths[name])

    uploads: list[Callable[[Cancellation], FileEntry | None]] = [partial(upload, n) for n in names]
    hashes: list[Callable[[Cancellation], FileEntry | None]] = [partial(entry, n) for n in names]
    results = in_parallel([*uploads, *hashes], cancellation)[len(names) :]
    entries = {name: found for name, found in zip(names, results, strict=True) if found}
    manifest = Manifest(step=step, files=dict(sorted(entries.items())))
    return write_manifest(storage, key, manifest)


def write_manifest(storage: Storage, key: str, manifest: Manifest) -> StoredFolder:
    """The last thing to be written below `key`."""
    data = manifest.serialize()
    storage.write(key + MANIFEST_NAME, data)
    return StoredFolder(key, hashlib.sha256(data).hexdigest(), manifest.total_bytes)


def download_folder(
    storage: Storage,
    key: str,
    manifest_sha256: str,
    into: Path,
    alive: Callable[[], None] = lambda: None,
) -> Manifest:
    """Download what the manifest lists and verify each file, for which `alive` is called.

    Raises `Rejected` for anything missing, altered or out of place; the storage's own errors
    (unreachable, refused) pass through, since they say nothing of the folder.
    """

    def fetch(name: str, entry: FileEntry, cancellation: Cancellation) -> None:
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.download(key + name, path, cancellation=cancellation)
        verify_file(path, entry, alive)

    try:
        data, _ = storage.read(key + MANIFEST_NAME)
        manifest = parse(data, manifest_sha256)
        largest_first = sorted(manifest.files.items(), key=lambda item: -item[1].size)
        in_parallel([partial(fetch, name, entry) for name, entry in largest_first])
    except NotFound as error:
        raise Rejected(f"{error} is missing in storage") from error
    except Conflict as error:
        raise Rejected(f"changed while it was read: {error}") from error
    except ValidationError as error:
        raise Rejected(f"{MANIFEST_NAME} can't be read: {error.errors()[0]['msg']}") from error
    return manifest
