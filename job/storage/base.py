"""The one seam to storage: a Protocol that S3 and a local directory both keep.

Keys are relative to the root that `open_storage` was given (`s3://bucket/prefix`), use `/`, and
never start with one. Every backend maps its faults once, here named in each verb: `NotFound`,
`Conflict`, and from `job.errors` `Unavailable` (transient, retried by the backend first),
`AccessDenied`, `SettingsError` (the bucket does not exist) and `OutOfDisk`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from job.errors import Unavailable
from job.storage.cancellation import Cancellation
from job.storage.observer import Observer


class NotFound(Exception):
    """No object under that key."""


class Conflict(Exception):
    """The condition of a write did not hold: somebody else changed the object first."""


class Unanswered(Unavailable):
    """The request was sent, and its answer did not come: it may have been served."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of an object without sending it."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Opaque, changes with the content; quotes stripped."""
    version_id: str | None = None
    """The version, where the store keeps versions."""


class Storage(Protocol):
    """Objects under one root. Implementations are thread-safe."""

    @property
    def uri(self) -> str:
        """The root, as the user would write it, without a trailing slash."""
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Raises `NotFound`."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in key order."""
        ...

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        """The folders directly below `prefix` ('' or ending in '/') that hold an object at any
        depth: their prefixes (`runs/a/`), in key order. What is in them isn't gone through, nor
        are those whose names don't begin with `names`."""
        ...

    def read(self, key: str) -> tuple[bytes, str]:
        """The whole of a small object, and its ETag. Raises `NotFound`."""
        ...

    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        """Put a small object, return its new ETag.

        `if_match` is the ETag the object must still have; `if_none_match` says that there must be
        no object yet. Raises `Conflict` when that does not hold.
        """
        ...

    def upload(
        self,
        key: str,
        path: Path,
        *,
        cancellation: Cancellation | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> None:
        """Put a file of any size, in parts where that pays; conditions as those of `write`.

        Raises `Conflict`, and `Cancelled` soon after `cancellation` was asked for.
        """
        ...

    def download(
        self,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Get an object of any size into `path`. Raises `NotFound`, or `Conflict` when `etag` or
        `version_id` is given and that object is no longer to be had; `Cancelled` as `upload`."""
        ...

    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of an object of any size from `offset` on, in chunks, one after the other.

        `offset` is below the object's size, or 0. Entering or iterating raises `NotFound`, or
        `Conflict` when the object changes meanwhile, or when `etag` or `version_id` is given and
        that object is no longer to be had. What the caller does with a chunk, and what it raises,
        is no business of the storage.
        """
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        ...

    def rephrase(self) -> bool:
        """Put conditions another way from now on: stores differ in how they read them. False once
        there is no other, and the first is in use again."""
        ...

    def reopened(self, observer: Observer | None = None) -> Storage:
        """Another client of the same root, which knows how this one puts conditions."""
        ...

    def forget_uploads(self, prefix: str) -> int:
        """Remove the parts, invisible to `list`, that unfinished uploads below `prefix` have left;
        returns how many uploads. 0 where the store can't tell, or doesn't let us."""
        ...
