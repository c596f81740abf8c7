"""The data objects a run trains on: found, pinned, brought to the work volume, hashed.

Every object is pinned by its version or ETag before it is downloaded, and its SHA-256 (over the
bytes as stored, compressed or not) goes into the run's fingerprint.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from job.errors import AccessDenied, DataError, Problem, SettingsError
from job.storage import Conflict, NotFound, Observer, open_storage, split_s3_uri

SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_SETTING: Final = "FORGE_DATASET_URI"

log = logging.getLogger(__name__)


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
class _Found:
    """A data object that exists, not yet here. `path` is set where it already is."""

    uri: str
    size: int
    etag: str | None = None
    version_id: str | None = None
    path: Path | None = None


def fetch(uris: Sequence[str], work_dir: Path, observer: Observer | None = None) -> list[DataFile]:
    """Find, pin and download what `uris` name, in their order, below a prefix in key order.

    Local files are read where they are. Raises `SettingsError` for what doesn't exist (all of it
    at once), `DataError` for a prefix or folder without data and for an object that changes
    meanwhile, and what the storage raises (`Unavailable`, `AccessDenied`, `OutOfDisk`).
    """
    found: dict[str, _Found] = {}
    missing: list[Problem] = []
    without_data: list[Problem] = []
    for uri in uris:
        try:
            for item in _find(uri, observer):
                if item.uri in found:
                    log.warning("%s is named twice by %s; it is read once", item.uri, _SETTING)
                found.setdefault(item.uri, item)
        except SettingsError as error:
            missing += error.problems
        except DataError as error:
            without_data += error.problems
    if missing:
        raise SettingsError(missing + without_data)
    if without_data:
        raise DataError(without_data)
    return [_bring(item, work_dir, n, observer) for n, item in enumerate(found.values())]


def _find(uri: str, observer: Observer | None) -> Iterator[_Found]:
    if not uri.startswith("s3://"):
        yield from _find_local(uri)
        return
    try:
        yield from _find_in_s3(uri, observer)
    except ValueError as error:  # a key with '..' or '//' in it
        raise SettingsError(Problem(_SETTING, f"{uri}: {error}")) from None
    except SettingsError as error:
        raise SettingsError(
            Problem(_SETTING, f"{uri}: {problem.found}", problem.hint) for problem in error.problems
        ) from error


def _find_in_s3(uri: str, observer: Observer | None) -> Iterator[_Found]:
    bucket, key = split_s3_uri(uri)
    storage = open_storage(f"s3://{bucket}", observer)
    whole_prefix = not key or key.endswith("/")
    keys = [info.key for info in storage.list(key)] if whole_prefix else [key]
    for key in _with_data(uri, keys) if whole_prefix else keys:
        try:
            info = storage.stat(key)
        except NotFound:
            if whole_prefix:
                raise _changed(f"s3://{bucket}/{key}") from None
            raise SettingsError(
                Problem("", "does not exist", "check the key; a prefix must end in '/'")
            ) from None
        yield _Found(f"s3://{bucket}/{key}", info.size, info.etag, info.version_id)


def _find_local(uri: str) -> Iterator[_Found]:
    path = Path(uri)
    try:
        if path.is_dir():
            for name in _with_data(uri, sorted(_below(path))):
                yield _local_file(path / name)
        elif not path.exists():
            raise SettingsError(Problem(_SETTING, f"{uri}: does not exist"))
        elif not (path.is_file() and uri.endswith(SUFFIXES)):
            raise SettingsError(
                Problem(_SETTING, f"{uri}: is not a {', '.join(SUFFIXES)} file or a folder of them")
            )
        else:
            yield _local_file(path)
    except PermissionError as error:
        raise AccessDenied(Problem(_SETTING, f"{uri}: may not be read")) from error


def _below(folder: Path) -> Iterator[str]:
    """Relative names of all files. Kubernetes keeps what it mounts in '..data', under links."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith("..")]
        for name in files:
            path = Path(parent, name)
            if path.is_file():
                yield path.relative_to(folder).as_posix()


def _local_file(path: Path) -> _Found:
    return _Found(str(path), path.stat().st_size, path=path)


def _with_data(uri: str, names: Sequence[str]) -> list[str]:
    """Those that can be read as data; the others are named in one line of the log."""
    data = [name for name in names if name.endswith(SUFFIXES)]
    others = [name for name in names if not name.endswith(SUFFIXES)]
    if not data:
        held = f"{len(others)} other objects" if others else "nothing at all"
        raise DataError(
            Problem(uri, f"holds no {', '.join(SUFFIXES)} object, but {held}", f"set {_SETTING}")
        )
    if others:
        log.info(
            "%s: %d objects are no data and are ignored: %s%s",
            uri,
            len(others),
            ", ".join(others[:5]),
            ", …" if len(others) > 5 else "",
        )
    return data


def _bring(item: _Found, work_dir: Path, number: int, observer: Observer | None) -> DataFile:
    path = item.path or _download(item, work_dir, number, observer)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except PermissionError as error:
        raise AccessDenied(Problem(_SETTING, f"{item.uri}: may not be read")) from error
    return DataFile(DataObject(item.uri, size, item.etag, item.version_id, sha256), path)


def _download(item: _Found, work_dir: Path, number: int, observer: Observer | None) -> Path:
    bucket, key = split_s3_uri(item.uri)
    # Names from outside stay out of the path; the suffix says how to read it.
    suffix = next(suffix for suffix in reversed(SUFFIXES) if key.endswith(suffix))
    path = work_dir / f"{number:05d}{suffix}"
    try:
        open_storage(f"s3://{bucket}", observer).download(
            key, path, etag=item.etag, version_id=item.version_id
        )
    except (Conflict, NotFound) as error:
        raise _changed(item.uri) from error
    return path


def _changed(uri: str) -> DataError:
    return DataError(
        Problem(
            uri,
            "was changed or removed while it was being fetched",
            "finish writing the data before the run starts",
        )
    )
