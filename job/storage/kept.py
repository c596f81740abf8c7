"""Files of objects that outlive the process that fetched them: a download goes on where a killed
one stopped, and a whole file isn't fetched twice.

Beside the file lies `<name>.json`, which says what it is of, and while it isn't whole its bytes
are in `<name>.part`: always a prefix of that one object.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from job.errors import OutOfDisk, Problem, Unavailable
from job.storage.base import Conflict, NotFound, ObjectInfo, Storage
from job.storage.faults import work_disk_fault

_LOCK: Final = ".lock"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Label:
    """What a file is of, as its JSON says."""

    uri: str
    size: int
    etag: str
    version_id: str | None
    sha256: str | None = None
    """Once all of it is here."""


def keep(storage: Storage, info: ObjectInfo, path: Path) -> str:
    """Have exactly the object of `info` in `path`, and return its SHA-256.

    No byte is asked for that an earlier call, in whatever process, has left beside `path`. Raises
    `Conflict` if the object is another one by now or gone, what `Storage.stream` raises,
    `OutOfDisk`, and `SettingsError` if the folder can't be written. After `Conflict` and
    `OutOfDisk` nothing is left; any other end, a kill too, leaves what has come for the next call.
    One process at a time: a second one waits.
    """
    label = _Label(f"{storage.uri}/{info.key}", info.size, info.etag, info.version_id)
    with _work_disk(), _alone(path.parent):
        known = _read_label(path, of=label)
        if known is not None and known.sha256 is not None and known.sha256 == _sha256(path):
            _log.info("%s is here already, as its SHA-256 proves", label.uri)
            return known.sha256
        path.unlink(missing_ok=True)
        try:
            if known is None:
                _part(path).unlink(missing_ok=True)
                _write_label(path, label)
            sha256 = _fetch(storage, info, _part(path))
            _write_label(path, replace(label, sha256=sha256))
        except (Conflict, NotFound, OutOfDisk, OSError):
            # Nobody can go on with it: it is of another object, or there is no room.
            _part(path).unlink(missing_ok=True)
            _label(path).unlink(missing_ok=True)
            raise
        _part(path).replace(path)
        return sha256


def _fetch(storage: Storage, info: ObjectInfo, part: Path) -> str:
    """Append what `part` lacks."""
    with part.open("a+b") as file:
        if file.tell() > info.size:  # nothing that we wrote
            file.truncate(0)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        offset = file.tell()
        begun = f", of which {offset / 1e6:.1f} are here" if offset else ""
        _log.info("fetching %s/%s: %.1f MB%s", storage.uri, info.key, info.size / 1e6, begun)
        if offset < info.size:
            with storage.stream(
                info.key, offset, etag=info.etag, version_id=info.version_id
            ) as chunks:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
        size = file.tell()
    if size != info.size:
        found = f"sent {size} bytes of the {info.size} that it promised"
        raise Unavailable(Problem(f"{storage.uri}/{info.key}", found))
    return digest.hexdigest()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _label(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _read_label(path: Path, *, of: _Label) -> _Label | None:
    """What lies there, if it is of that object."""
    try:
        known = _Label(**json.loads(_label(path).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return known if replace(known, sha256=None) == of else None


def _write_label(path: Path, label: _Label) -> None:
    """Whole or not at all."""
    unfinished = path.with_name(f"{path.name}.json.part")
    unfinished.write_text(json.dumps(asdict(label)))
    unfinished.replace(_label(path))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """An attempt that is fenced, and doesn't know it yet, may still be at it in the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("another process fetches into %s; waiting for it", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _work_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if (fault := work_disk_fault(error)) is not None:
            raise fault from error
        raise
