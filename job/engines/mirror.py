"""A model in S3: filled once from a hub or a folder, fetched by every run in parallel, verified.

A mirror is an ordinary model folder, so `aws s3 cp --recursive` makes one too. One that
`forge-job mirror` has filled also has a manifest, written last: size and SHA-256 of every file, and
where the model came from. Such a mirror is verified as it is fetched, and the manifest says what of
the prefix is the mirror's: nothing else there is loaded, and nothing else is ever removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from job.checkpoint.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    Rejected,
    entry_of,
    parse,
    verify_file,
)
from job.checkpoint.parallel import in_parallel
from job.errors import Problem, SettingsError, Unavailable
from job.storage import Cancellation, Conflict, NotFound, open_storage
from job.storage.base import ObjectInfo, Storage
from job.storage.observer import Observer

_log = logging.getLogger(__name__)

_MARKS = ".etags"
"""Beside the files, one mark each, written after its file: weights of one size may differ."""
_NAMED: Final = 3
"""So many objects that are none of ours are named, and no more are listed."""

Matches = Callable[[str], bool]


class Mirror:
    """The model below one `s3://` prefix."""

    def __init__(self, uri: str, observer: Observer | None = None) -> None:
        self._storage = open_storage(uri.rstrip("/"), observer)
        self._uri = self._storage.uri
        self._manifest, self._identity = self._read_manifest()
        self._objects = [info for info in self._storage.list() if self._is_part(info.key)]

    def _is_part(self, key: str) -> bool:
        """What lies beside a mirror's files is no part of the model, whatever it is called."""
        return "/" not in key if self._manifest is None else key in self._manifest.files

    @property
    def identity(self) -> str:
        """Changes with any file of the model."""
        if self._identity:
            return self._identity
        listed = [[i.key, i.etag, i.size] for i in self._objects if i.key != MANIFEST_NAME]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def fetch(self, wanted: Matches, folder: Path) -> None:
        """Bring the files whose names are `wanted` into `folder`, where they aren't there yet.

        Raises `SettingsError` where a file is missing or is not the one that was mirrored,
        `Unavailable` where one changes meanwhile, and the storage's own errors.
        """
        found = [info for info in self._objects if wanted(info.key)]
        self._refuse_missing(wanted, {info.key for info in found})
        if found:
            (folder / _MARKS).mkdir(parents=True, exist_ok=True)
            self._remove_others(folder)
        largest_first = sorted(found, key=lambda info: -info.size)
        in_parallel([partial(self._fetch_once, info, folder) for info in largest_first])

    def names(self, wanted: Matches) -> set[str]:
        """Of the files there whose names are `wanted`. Raises `SettingsError` where one that was
        mirrored is missing."""
        found = {info.key for info in self._objects if wanted(info.key)}
        self._refuse_missing(wanted, found)
        return found

    def _remove_others(self, folder: Path) -> None:
        """What was fetched while the mirror held another model: who loads the folder would take
        its weights in one file, or its template, for those of this one."""
        known = {info.key for info in self._objects}
        for mark in (folder / _MARKS).iterdir():
            if mark.name not in known:
                (folder / mark.name).unlink(missing_ok=True)
                mark.unlink(missing_ok=True)

    def _fetch_once(self, info: ObjectInfo, folder: Path, cancellation: Cancellation) -> None:
        path, mark = folder / info.key, folder / _MARKS / info.key
        if path.is_file() and mark.is_file() and mark.read_text() == info.etag:
            return
        _log.info("model file %s (%.1f MB)", info.key, info.size / 1e6)
        try:
            self._storage.download(info.key, path, etag=info.etag, cancellation=cancellation)
        except (Conflict, NotFound) as error:
            found = f"{self._uri}/{info.key} was changed while it was fetched"
            raise Unavailable(Problem("FORGE_MODEL", found)) from error
        if self._manifest and (entry := self._manifest.files.get(info.key)):
            self._verify(path, entry)
        mark.write_text(info.etag)

    def _verify(self, path: Path, entry: FileEntry) -> None:
        try:
            verify_file(path, entry)
        except Rejected as reason:
            path.unlink()
            raise self._damaged(str(reason)) from reason

    def _refuse_missing(self, wanted: Matches, found: set[str]) -> None:
        listed = self._manifest.files if self._manifest else {}
        if missing := sorted(name for name in listed if wanted(name) and name not in found):
            raise self._damaged(f"{', '.join(missing[:3])} is missing")

    def _damaged(self, found: str, first: str = "") -> SettingsError:
        hint = f"{first}fill the mirror anew: forge-job mirror <model> {self._uri}"
        return SettingsError(Problem("FORGE_MODEL", f"{self._uri}: {found}", hint))

    def _read_manifest(self) -> tuple[Manifest | None, str]:
        try:
            data, _ = self._storage.read(MANIFEST_NAME)
        except NotFound:
            return None, ""
        identity = hashlib.sha256(data).hexdigest()
        try:
            return parse(data, identity), identity
        except (Rejected, ValidationError) as error:
            # Who wrote it can't be told, so filling the mirror anew would leave it alone.
            raise self._damaged(f"{MANIFEST_NAME} can't be read", "remove it and ") from error


def check_place(uri: str, matches: Matches) -> None:
    """Whether a mirror may be filled at `uri`, where its files' names are those that `matches`.

    Raises `SettingsError` where other objects lie, and the storage's errors.
    """
    _earlier(open_storage(uri.rstrip("/")), matches)


def fill(uri: str, folder: Path, source: str, revision: str, names: Sequence[str]) -> Manifest:
    """Upload those files of `folder`, a model called `source` at `revision`; the manifest last.

    Files that are there already, as an earlier manifest or an earlier, unfinished try left them,
    are not sent again. Raises as `check_place` does.
    """
    storage = open_storage(uri.rstrip("/"))
    earlier = _earlier(storage, set(names).__contains__)
    largest_first = sorted(names, key=lambda name: -(folder / name).stat().st_size)
    tasks = [partial(_put_once, storage, folder, name) for name in largest_first]
    entries = dict(zip(largest_first, in_parallel(tasks), strict=True))
    manifest = Manifest(
        step=0, files=dict(sorted(entries.items())), source=source, revision=revision
    )
    # Before the manifest that names them is replaced: a try that is cut off here is made up for.
    storage.delete(sorted(earlier - entries.keys()))
    storage.write(MANIFEST_NAME, manifest.serialize())
    return manifest


def _earlier(storage: Storage, matches: Matches) -> set[str]:
    """The files of an earlier mirror at this very prefix; none where there was none."""
    manifest = _manifest_of_mirror(storage)
    if manifest is not None:
        return {name for name in manifest.files if "/" not in name and name != MANIFEST_NAME}
    keys = (info.key for info in storage.list())
    if foreign := list(islice((key for key in keys if not matches(key)), _NAMED)):
        raise _occupied(storage.uri, foreign)
    return set()


def _manifest_of_mirror(storage: Storage) -> Manifest | None:
    """Adapters and checkpoints have a manifest too; only a mirror's says where it came from."""
    try:
        data, _ = storage.read(MANIFEST_NAME)
        manifest = parse(data, hashlib.sha256(data).hexdigest())
    except (NotFound, Rejected, ValidationError):
        return None
    return manifest if {"source", "revision"} <= (manifest.model_extra or {}).keys() else None


def _occupied(uri: str, foreign: Sequence[str]) -> SettingsError:
    found = f"holds what no mirror has left there: {', '.join(foreign)}"
    hint = (
        f"name a folder of its own: {uri}/<name>; or remove these first, if an unfinished mirror "
        "of another model has left them"
    )
    return SettingsError(Problem(uri, found, hint))


def _put_once(storage: Storage, folder: Path, name: str, cancellation: Cancellation) -> FileEntry:
    path = folder / name
    entry = entry_of(path)
    if not _holds(storage, name, entry):
        _log.info("uploading %s (%.1f MB)", name, entry.size / 1e6)
        storage.upload(name, path, cancellation=cancellation)
    return entry


def _holds(storage: Storage, name: str, entry: FileEntry) -> bool:
    """Whether the object is that file, byte by byte: reading it costs less than sending it."""
    digest = hashlib.sha256()
    try:
        if storage.stat(name).size != entry.size:
            return False
        with storage.stream(name) as chunks:
            for chunk in chunks:
                digest.update(chunk)
    except NotFound:
        return False
    return digest.hexdigest() == entry.sha256
