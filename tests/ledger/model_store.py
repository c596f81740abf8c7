"""A store in memory, and a process's connection to it on which each call waits for the test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from job.storage import Cancellation, Conflict, NotFound, ObjectInfo, Observer, Storage
from job.storage.keys import checked_key, checked_prefix
from tests.ledger.interleaved import Call, Schedule


def etag_of(data: bytes) -> str:
    """As S3's: the same content has the same ETag again."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class MemoryStore:
    """Keeps `job.storage.Storage`. Single-threaded: the test makes every call happen."""

    uri = "memory://runs/run-1"

    def __init__(self, *, conditional: bool = True) -> None:
        """Without `conditional` it ignores conditions, as some stores do."""
        self.conditional = conditional
        self.objects: dict[str, bytes] = {}

    def stat(self, key: str) -> ObjectInfo:
        data, etag = self.read(key)
        return ObjectInfo(key, len(data), etag)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        checked_prefix(prefix)
        keys = sorted((key for key in self.objects if key.startswith(prefix)), key=str.encode)
        return iter([self.stat(key) for key in keys])

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        prefix += names
        below = (k.removeprefix(prefix) for k in self.objects if k.startswith(prefix))
        return iter(sorted({f"{prefix}{key.split('/')[0]}/" for key in below if "/" in key}))

    def read(self, key: str) -> tuple[bytes, str]:
        try:
            data = self.objects[checked_key(key)]
        except KeyError:
            raise NotFound(f"{self.uri}/{key}") from None
        return data, etag_of(data)

    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        found = self.objects.get(checked_key(key))
        if self.conditional and (if_match is not None or if_none_match):
            etag = None if found is None else etag_of(found)
            if etag != if_match:
                raise Conflict(f"{self.uri}/{key}: has ETag {etag}, expected {if_match}")
        self.objects[key] = data
        return etag_of(data)

    def upload(
        self,
        key: str,
        path: Path,
        *,
        cancellation: Cancellation | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> None:
        if cancellation is not None:
            cancellation.check()
        self.write(key, path.read_bytes(), if_match=if_match, if_none_match=if_none_match)

    def download(
        self,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        if cancellation is not None:
            cancellation.check()
        data = self._pinned(key, etag, version_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    @contextmanager
    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> Iterator[Iterator[bytes]]:
        data = self._pinned(key, etag, version_id)[offset:]
        yield iter([data] if data else [])

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.objects.pop(checked_key(key), None)

    def rephrase(self) -> bool:
        """There is one way."""
        return False

    def reopened(self, observer: Observer | None = None) -> Storage:
        return self

    def forget_uploads(self, prefix: str) -> int:
        """None: objects come whole or not at all."""
        checked_prefix(prefix)
        return 0

    def _pinned(self, key: str, etag: str | None, version_id: str | None) -> bytes:
        pinned = etag is not None or version_id is not None
        try:
            data, found = self.read(key)
        except NotFound as error:
            if pinned:
                raise Conflict(f"{self.uri}/{key}: the pinned object is gone") from error
            raise
        if version_id is not None or (etag is not None and etag != found):
            raise Conflict(f"{self.uri}/{key}: is no longer what was pinned")
        return data


class Connection:
    """Keeps `job.storage.Storage` for one process: every call parks until it is answered.

    `asked` is told of each call in its caller's thread, `told` there of what was read, `changed`
    in the test's thread of what has just been changed, also when the caller is dead by then.
    """

    def __init__(
        self,
        store: MemoryStore,
        schedule: Schedule,
        *,
        asked: Callable[[str, str], None],
        told: Callable[[str, bytes], None],
        changed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._asked = asked
        self._told = told
        self._changed = changed

    @property
    def uri(self) -> str:
        return self._store.uri

    def stat(self, key: str) -> ObjectInfo:
        found: ObjectInfo = self._look("stat", key, partial(self._store.stat, key))
        return found

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found: Iterator[ObjectInfo] = self._look("list", prefix, partial(self._store.list, prefix))
        return found

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        act = partial(self._store.folders, prefix, names=names)
        found: Iterator[str] = self._look("folders", prefix, act)
        return found

    def read(self, key: str) -> tuple[bytes, str]:
        found: tuple[bytes, str] = self._look("read", key, partial(self._store.read, key))
        self._told(key, found[0])
        return found

    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        act = partial(self._store.write, key, data, if_match=if_match, if_none_match=if_none_match)
        etag: str = self._change("write", key, act)
        return etag

    def upload(
        self,
        key: str,
        path: Path,
        *,
        cancellation: Cancellation | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> None:
        data = path.read_bytes()  # as sent: the file may be gone once this arrives
        act = partial(self._store.write, key, data, if_match=if_match, if_none_match=if_none_match)
        self._change("upload", key, act, cancellation or Cancellation())

    def download(
        self,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        act = partial(self._store.download, key, path, etag=etag, version_id=version_id)
        self._look("download", key, act, cancellation or Cancellation())

    @contextmanager
    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> Iterator[Iterator[bytes]]:
        self._look("stream", key, lambda: None)
        with self._store.stream(key, offset, etag=etag, version_id=version_id) as chunks:
            yield chunks

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._change("delete", key, partial(self._store.delete, [key]))

    def rephrase(self) -> bool:
        return self._store.rephrase()

    def reopened(self, observer: Observer | None = None) -> Storage:
        return self

    def forget_uploads(self, prefix: str) -> int:
        count: int = self._look(
            "forget_uploads", prefix, lambda: self._store.forget_uploads(prefix)
        )
        return count

    def _look(
        self,
        verb: str,
        key: str,
        act: Callable[[], object],
        cancellation: Cancellation | None = None,
    ) -> Any:
        cancellation = cancellation or Cancellation()
        cancellation.check()
        self._asked(verb, key)
        expected = (NotFound, Conflict)
        return self._schedule.request(
            Call(verb, key, act, expected=expected, give_up=cancellation.check)
        )

    def _change(
        self,
        verb: str,
        key: str,
        act: Callable[[], object],
        cancellation: Cancellation | None = None,
    ) -> Any:
        cancellation = cancellation or Cancellation()
        cancellation.check()
        self._asked(verb, key)

        def effect() -> object:
            result = act()
            self._changed(key)
            return result

        expected = (Conflict,)
        return self._schedule.request(Call(verb, key, effect, True, expected, cancellation.check))
