"""A real storage with something of the test's own before and after each verb."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from job.storage import Cancellation, ObjectInfo, Observer, Storage

T = TypeVar("T")

Hook = Callable[[str, str], None]
"""Called with the verb and the key; what it raises is what the caller of the storage gets."""


def nothing(_verb: str, _key: str) -> None:
    """The hook that lets everything pass."""


class Wrapped:
    """Keeps `job.storage.Storage`. `calls` are the verbs that went through, in order."""

    def __init__(
        self,
        inner: Storage,
        *,
        before: Hook = nothing,
        after: Hook = nothing,
        ignores_conditions: bool = False,
    ) -> None:
        self.inner = inner
        self.before = before
        self.after = after
        self.ignores_conditions = ignores_conditions
        self.calls: list[tuple[str, str]] = []

    @property
    def uri(self) -> str:
        return self.inner.uri

    def stat(self, key: str) -> ObjectInfo:
        return self._do("stat", key, lambda: self.inner.stat(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._do("list", prefix, lambda: self.inner.list(prefix))

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        return self._do("folders", prefix, lambda: self.inner.folders(prefix, names=names))

    def read(self, key: str) -> tuple[bytes, str]:
        return self._do("read", key, lambda: self.inner.read(key))

    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        if self.ignores_conditions:
            if_match, if_none_match = None, False
        return self._do(
            "write",
            key,
            lambda: self.inner.write(key, data, if_match=if_match, if_none_match=if_none_match),
        )

    def upload(
        self,
        key: str,
        path: Path,
        *,
        cancellation: Cancellation | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> None:
        if self.ignores_conditions:
            if_match, if_none_match = None, False
        self._do(
            "upload",
            key,
            lambda: self.inner.upload(
                key,
                path,
                cancellation=cancellation,
                if_match=if_match,
                if_none_match=if_none_match,
            ),
        )

    def download(
        self,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._do(
            "download",
            key,
            lambda: self.inner.download(
                key, path, etag=etag, version_id=version_id, cancellation=cancellation
            ),
        )

    def rephrase(self) -> bool:
        return self.inner.rephrase()

    def reopened(self, observer: Observer | None = None) -> Storage:
        return self

    def forget_uploads(self, prefix: str) -> int:
        return self._do("forget_uploads", prefix, lambda: self.inner.forget_uploads(prefix))

    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> AbstractContextManager[Iterator[bytes]]:
        return self._do(
            "stream",
            key,
            lambda: self.inner.stream(key, offset, etag=etag, version_id=version_id),
        )

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._do("delete", key, lambda key=key: self.inner.delete([key]))  # type: ignore[misc]

    def _do(self, verb: str, key: str, act: Callable[[], T]) -> T:
        self.before(verb, key)
        result = act()
        self.calls.append((verb, key))
        self.after(verb, key)
        return result


class Hanging:
    """A hook that holds a verb up until `go_on` is set; `began` is set once it does."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self.began, self.go_on = threading.Event(), threading.Event()

    def __call__(self, verb: str, _key: str) -> None:
        if verb == self._verb:
            self.began.set()
            assert self.go_on.wait(60)


class Failing:
    """A hook that raises the given errors, one a call, where verb and key fit; then no more."""

    def __init__(self, verb: str, key: str, *errors: Exception) -> None:
        self._verb = verb
        self._key = key
        self.left = list(errors)

    def __call__(self, verb: str, key: str) -> None:
        if self.left and verb == self._verb and self._key in key:
            raise self.left.pop(0)


def wait_until(condition: Callable[[], bool]) -> None:
    """Until something in another thread has happened; how long that takes doesn't matter."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")
