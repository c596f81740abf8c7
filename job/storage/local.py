"""Storage in a local directory, with the same promises as S3: for tests, demos and single machines.

The ETag is a BLAKE2 hash of the content, so `stat` and `list` read every byte they speak of
(about a second a gigabyte). Conditional writes hold between processes on one machine; on a network
file system they hold as far as its `flock` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Final

from job.errors import AccessDenied, Problem
from job.storage.base import Conflict, NotFound, ObjectInfo
from job.storage.cancellation import Cancellation
from job.storage.keys import checked_folder, checked_key, checked_names, checked_prefix
from job.storage.local_files import (
    CHUNK_BYTES,
    copied_whole,
    copy,
    etag_of_data,
    etag_of_file,
    root_fault,
    sync,
    sync_folder,
)
from job.storage.local_staging import Staging
from job.storage.observer import Observer

_PRIVATE: Final = ".forge-storage"
"""Folder below the root for what is no object: never listed."""


class LocalStorage:
    """A `Storage` whose root is a directory. It is created by the first write.

    Every verb may raise `AccessDenied` (permissions, a read-only file system, a link that leads
    out of the root), `OutOfDisk`, `Unavailable` (a network file system that fails) and
    `ValueError` for a key that could leave the root. A key can't be a folder of another one.
    """

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).absolute()
        self._staging = Staging(self._root / _PRIVATE)

    @property
    def uri(self) -> str:
        return str(self._root)

    def stat(self, key: str) -> ObjectInfo:
        """Reads the whole object for its ETag. Raises `NotFound`."""
        with self._mapped(key), self._open(key) as file:
            return ObjectInfo(key, os.fstat(file.fileno()).st_size, etag_of_file(file))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """In key order. Reads every object it yields, for its ETag."""
        checked_prefix(prefix)
        with self._mapped(prefix):
            keys = sorted((key for key in self._keys() if key.startswith(prefix)), key=os.fsencode)
        for key in keys:
            try:
                yield self.stat(key)
            except NotFound:
                continue  # Deleted since.

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        """A folder without a file somewhere in it isn't told, as in S3."""
        checked_folder(prefix)
        checked_names(names)
        with self._mapped(prefix):
            parent = self._root / prefix
            if not parent.is_dir():
                return
            found = (path.name for path in parent.iterdir() if path.is_dir())
            wanted = sorted((name for name in found if name.startswith(names)), key=_as_keys)
        for name in wanted:
            folder = f"{prefix}{name}/"
            with self._mapped(folder):
                hidden = name == _PRIVATE or name[:2] == ".."
                if not hidden and next(self._keys(self._root / folder), None) is not None:
                    yield folder

    def read(self, key: str) -> tuple[bytes, str]:
        """Content and its ETag. Raises `NotFound`."""
        with self._mapped(key), self._open(key) as file:
            data = file.read()
        return data, etag_of_data(data)

    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        """Raises `Conflict`. On the disk when it returns."""
        with self._mapped(key), self._staging.file() as (file, unfinished):
            file.write(data)
            sync(file)
            with self._staging.locked():
                if if_none_match or if_match is not None:
                    self._check(key, if_match)
                self._put(unfinished, key)
        return etag_of_data(data)

    def upload(
        self,
        key: str,
        path: Path,
        *,
        cancellation: Cancellation | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> None:
        """Copies the file. On the disk when it returns. Raises `Conflict` and `Cancelled`."""
        with (
            path.open("rb") as source,
            self._mapped(key),
            self._staging.file() as (file, unfinished),
        ):
            copy(source, file, cancellation or Cancellation())
            sync(file)
            with self._staging.locked():
                if if_none_match or if_match is not None:
                    self._check(key, if_match)
                self._put(unfinished, key)

    def download(
        self,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Into a temporary file beside `path`, renamed once it is whole; folders are created.

        Raises `NotFound`, and `Conflict` for another ETag than `etag` or for any `version_id`:
        a directory keeps no versions.
        """
        with self._mapped(key), self._open_pinned(key, etag, version_id) as source:
            copied_whole(source, path, cancellation or Cancellation())

    @contextmanager
    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> Iterator[Iterator[bytes]]:
        """Of the object as it was when the stream was opened. Raises as `download` does."""

        def next_chunk(source: BufferedReader) -> bytes:
            with self._mapped(key):
                return source.read(CHUNK_BYTES)

        with self._mapped(key):
            source = self._open_pinned(key, etag, version_id)
        with source:
            source.seek(offset)
            yield iter(partial(next_chunk, source), b"")

    def delete(self, keys: Iterable[str]) -> None:
        """Folders that are left empty go too."""
        for key in keys:
            with self._mapped(key):
                path = self._path(key)
                if not self._root.exists():
                    continue
                with self._staging.locked():
                    path.unlink(missing_ok=True)
                    self._prune(path.parent)

    def rephrase(self) -> bool:
        """There is one way."""
        return False

    def reopened(self, observer: Observer | None = None) -> LocalStorage:
        """There are no clients: itself."""
        return self

    def forget_uploads(self, prefix: str) -> int:
        """Whatever their keys were to be. Those that are under way stay, here and in any other
        process, as far as the file system's `flock` goes: beyond, their writer gets `JobError`."""
        checked_prefix(prefix)
        with self._mapped(prefix):
            return self._staging.forget()

    def _path(self, key: str) -> Path:
        """Where the object lies. Raises `AccessDenied` if a link leads out of the root."""
        if checked_key(key).split("/")[0] == _PRIVATE:
            raise ValueError(f"{key!r} is no key: {_PRIVATE} is the storage's own")
        path = self._root / key
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise AccessDenied(Problem(str(path), f"is a link that leads out of {self._root}"))
        return path

    def _open(self, key: str) -> BufferedReader:
        path = self._path(key)
        try:
            return path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(str(path)) from None

    def _open_pinned(self, key: str, etag: str | None, version_id: str | None) -> BufferedReader:
        try:
            source = self._open(key)
        except NotFound as error:
            if etag is not None or version_id is not None:
                raise Conflict(f"{self._root}/{key}: the pinned object is gone") from error
            raise
        if version_id is not None or (etag is not None and etag_of_file(source) != etag):
            source.close()
            raise Conflict(f"{self._root}/{key}: is no longer what was pinned")
        return source

    def _keys(self, below: Path | None = None) -> Iterator[str]:
        root = self._root.resolve()
        for folder, folders, files in os.walk(below or self._root):
            # Kubernetes keeps the content of mounted ConfigMaps in '..data', under links.
            folders[:] = [name for name in folders if name != _PRIVATE and name[:2] != ".."]
            for path in (Path(folder, name) for name in files):
                if path.is_file() and path.resolve().is_relative_to(root):
                    yield path.relative_to(self._root).as_posix()

    def _check(self, key: str, if_match: str | None) -> None:
        """The condition of a write, under the lock: that ETag, or no object if there is none."""
        try:
            with self._open(key) as file:
                found: str | None = etag_of_file(file)
        except NotFound:
            found = None
        if found != if_match:
            raise Conflict(f"{self._root}/{key}: has ETag {found}, expected {if_match}")

    def _put(self, unfinished: Path, key: str) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.replace(path)
        sync_folder(path.parent)

    def _prune(self, folder: Path) -> None:
        while folder != self._root and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    @contextmanager
    def _mapped(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise root_fault(error, f"{self._root}/{key}") from error


def _as_keys(name: str) -> bytes:
    """Sorts folders as S3 sorts their prefixes: with the '/' that follows."""
    return os.fsencode(name + "/")
