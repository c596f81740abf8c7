"""Files of any size to and from S3 through boto3's transfer manager: in parts, several at once.

One manager serves a client for as long as it lives: its threads are there for the next file, and
as they are started by whoever asks for a transfer, they run at that thread's priority.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from s3transfer.exceptions import (
    RetriesExceededError,
    S3DownloadFailedError,
    S3ValidationError,
)
from s3transfer.subscribers import BaseSubscriber

from job.storage.cancellation import Cancellation
from job.storage.observer import Observer
from job.storage.s3_client import ATTEMPTS, TRANSFER_THREADS
from job.storage.s3_faults import ObjectChanged, TransferFailed

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_MIB: Final = 1024 * 1024

_CONFIG: Final = TransferConfig(
    multipart_threshold=16 * _MIB,
    multipart_chunksize=16 * _MIB,
    max_concurrency=TRANSFER_THREADS,
    num_download_attempts=ATTEMPTS,
    io_chunksize=_MIB,
    # The CRT client would be taken on some instance types only, and takes no endpoint.
    preferred_transfer_client="classic",
)

_CONDITIONAL: Final = ("PutObject", "CompleteMultipartUpload")
"""The requests that make an uploaded file appear."""


class Transfers:
    """Uploads and downloads of one client. Thread-safe."""

    def __init__(self, client: S3Client, observer: Observer) -> None:
        self._observer = observer
        self._manager = create_transfer_manager(client, _CONFIG)
        self._conditions: dict[str, Mapping[str, object]] = {}
        for operation in _CONDITIONAL:
            client.meta.events.register(f"before-parameter-build.s3.{operation}", self._impose)

    def upload(
        self,
        path: Path,
        bucket: str,
        key: str,
        content_type: str,
        condition: Mapping[str, object],
        cancellation: Cancellation,
    ) -> None:
        """`condition` is `IfMatch` or `IfNoneMatch`, as PutObject takes them."""
        if condition:
            self._conditions[key] = condition
        try:
            ended = Ended()
            future = self._manager.upload(
                str(path),
                bucket,
                key,
                extra_args={"ContentType": content_type},
                subscribers=[Sent(self._observer), ended],
            )
            _wait(future, ended, cancellation)
        finally:
            self._conditions.pop(key, None)

    def download(
        self,
        path: Path,
        bucket: str,
        key: str,
        etag: str | None,
        version_id: str | None,
        cancellation: Cancellation,
    ) -> None:
        ended = Ended()
        future = self._manager.download(
            bucket,
            key,
            str(path),
            extra_args={"VersionId": version_id} if version_id is not None else {},
            subscribers=[*download_subscribers(self._observer, etag), ended],
        )
        _wait(future, ended, cancellation)

    def _impose(self, params: dict[str, Any], **_: Any) -> None:
        """The transfer manager takes no conditions for uploads."""
        params.update(self._conditions.get(params["Key"], {}))


def _wait(future: Any, ended: Ended, cancellation: Cancellation) -> None:
    """Until the transfer has ended. When that is cut short, by a request or by whatever is raised
    here, the parts under way end by themselves, behind our back: a dead connection takes long."""
    try:
        with cancellation.telling(ended.event.set):
            ended.event.wait()
        cancellation.check()
    except BaseException:
        future.cancel()
        raise
    try:
        future.result()
    except S3DownloadFailedError as error:
        raise ObjectChanged(str(error)) from error
    except (RetriesExceededError, S3ValidationError) as error:
        raise TransferFailed(str(error)) from error


class Ended(BaseSubscriber):
    """An event at a transfer's end. That of the future can't be waited for together with others."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_done(self, future: Any, **_: Any) -> None:
        self.event.set()


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
