"""Subscribers of boto3's transfer manager: what it is told before, and tells during, a transfer."""

from __future__ import annotations

from typing import Any

from s3transfer.subscribers import BaseSubscriber

from job.storage.observer import Observer


def download_subscribers(observer: Observer, etag: str | None) -> list[BaseSubscriber]:
    """Those of one download, which is for the object with that ETag where one is given."""
    return [Received(observer), *([Pin(etag)] if etag is not None else [])]


class Pin(BaseSubscriber):
    """Makes every request of a download conditional on the object's ETag.

    The transfer manager takes no `IfMatch` argument, but sends one for an ETag that it is given
    before the transfer starts.
    """

    def __init__(self, etag: str) -> None:
        self._etag = etag

    def on_queued(self, future: Any, **_: Any) -> None:
        future.meta.provide_object_etag(f'"{self._etag}"')


class Sent(BaseSubscriber):
    """Counts an upload's bytes."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        # Negative when a part is rewound: botocore's retry events count that.
        if bytes_transferred > 0:
            self._observer.sent(bytes_transferred)


class Received(BaseSubscriber):
    """Counts a download's bytes, and its parts that broke off and are fetched again."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
        if bytes_transferred > 0:
            self._observer.received(bytes_transferred)
        else:
            self._observer.retried("GetObject")
