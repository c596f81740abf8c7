"""A put under a condition, where the store honours conditions: that is decided here alone.

Some stores honour them and refuse them for a file in parts (`NotSupported`); some ignore them,
which `probe` has found out before.
"""

from __future__ import annotations

import logging
from typing import Protocol, TypeVar

from job.storage.base import NotFound, Storage
from job.storage.faults import NotSupported

_log = logging.getLogger(__name__)

T = TypeVar("T", covariant=True)


class Send(Protocol[T]):
    def __call__(self, *, if_match: str | None = None, if_none_match: bool = False) -> T:
        """Put an object under that condition. Raises `Conflict`."""
        ...


def send_if_unchanged(send: Send[T], etag: str | None, *, conditional: bool) -> T:
    """Send what replaces the object that has `etag` (None: there is none).

    Without a condition where the store has none to offer. Raises `Conflict`, and what `send` does.
    """
    if conditional:
        try:
            return send(if_match=etag, if_none_match=etag is None)
        except NotSupported as refused:
            _log.debug("no conditions for this object: %s", refused)
    return send()


def etag_of(storage: Storage, key: str) -> str | None:
    """None where there is no such object."""
    try:
        return storage.stat(key).etag
    except NotFound:
        return None
