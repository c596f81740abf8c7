"""Folders with a manifest, to and from storage: the manifest is written last and read first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from job.checkpoint.manifest import MANIFEST_NAME, Manifest, Rejected, build, parse, verify_file
from job.storage.base import Conflict, NotFound, Storage


@dataclass(frozen=True)
class StoredFolder:
    """A folder that is wholly in storage; it exists for the run once `run.json` names it."""

    key: str
    manifest_sha256: str
    bytes: int


def upload_folder(storage: Storage, key: str, folder: Path, step: int) -> StoredFolder:
    """Hash and upload a folder below `key` (which ends in '/'), the manifest last."""
    manifest = build(folder, step)
    for name in manifest.files:
        storage.upload(key + name, folder / name)
    data = manifest.serialize()
    storage.write(key + MANIFEST_NAME, data)
    return StoredFolder(key, hashlib.sha256(data).hexdigest(), manifest.total_bytes)


def download_folder(storage: Storage, key: str, manifest_sha256: str, into: Path) -> Manifest:
    """Download what the manifest lists and verify each file.

    Raises `Rejected` for anything missing, altered or out of place; the storage's own errors
    (unreachable, refused) pass through, since they say nothing of the folder.
    """
    try:
        data, _ = storage.read(key + MANIFEST_NAME)
        manifest = parse(data, manifest_sha256)
        for name, entry in manifest.files.items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.download(key + name, path)
            verify_file(path, entry)
    except NotFound as error:
        raise Rejected(f"{error} is missing in storage") from error
    except Conflict as error:
        raise Rejected(f"changed while it was read: {error}") from error
    except ValidationError as error:
        raise Rejected(f"{MANIFEST_NAME} can't be read: {error.errors()[0]['msg']}") from error
    return manifest
