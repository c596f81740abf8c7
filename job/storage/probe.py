"""Does the store keep its word? Asked with real requests, since some stores ignore conditions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from job.errors import JobError, Problem
from job.storage.base import Conflict, Storage
from job.storage.faults import NotSupported


def probe(storage: Storage) -> bool:
    """Write, read back, write under conditions and delete one small object below `.probe/`.

    True if conditional writes are honoured, in one of the ways in which the storage can put them
    (it stays with that one); False if the store ignores or refuses them. Raises `AccessDenied`,
    `Unavailable` or `SettingsError` as they come, and `JobError` if what is read is not what was
    written.
    """
    key = f".probe/{uuid.uuid4().hex}"
    storage.write(key, b"1")
    try:
        _read_back(storage, key, b"1")
        return any(_honours_conditions(storage, key) for _ in _phrasings(storage))
    finally:
        storage.delete([key])


def _phrasings(storage: Storage) -> Iterator[None]:
    yield
    while storage.rephrase():
        yield


def _read_back(storage: Storage, key: str, written: bytes) -> None:
    data, _ = storage.read(key)
    if data != written:
        found = f"read {data!r} after writing {written!r}"
        raise JobError(Problem(f"{storage.uri}/{key}", found, "the store is not consistent"))


def _honours_conditions(storage: Storage, key: str) -> bool:
    """Of an object that is there."""
    first = storage.write(key, b"1")
    try:
        if not _conflicts(storage, key, if_none_match=True):
            return False
        second = storage.write(key, b"2", if_match=first)
        if not _conflicts(storage, key, if_match=first):
            return False
    except (NotSupported, Conflict):
        # A store that refuses the condition that holds is of as little use as one that ignores it.
        return False
    _read_back(storage, key, b"2")
    return storage.stat(key).etag == second


def _conflicts(
    storage: Storage, key: str, *, if_match: str | None = None, if_none_match: bool = False
) -> bool:
    try:
        storage.write(key, b"3", if_match=if_match, if_none_match=if_none_match)
    except Conflict:
        return True
    return False
