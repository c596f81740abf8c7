"""Every request that a storage's client sends, counted on its way out; and storms of 503."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from botocore.awsrequest import AWSResponse

from job.storage import Storage
from job.storage.s3 import S3Storage

_SLOW_DOWN: Final = (
    b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
)
CLASSES: Final = {
    "PutObject": "PUT",
    "CreateMultipartUpload": "PUT",
    "UploadPart": "PUT",
    "CompleteMultipartUpload": "PUT",
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "ListObjectsV2": "LIST",
    "ListMultipartUploads": "LIST",
    "DeleteObjects": "DELETE",
    "DeleteObject": "DELETE",
}
"""Operation → what stores have a price for: POST costs what PUT does."""


class _Body:
    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield _SLOW_DOWN


class Requests:
    """Thread-safe. What a storm answers never reaches the store."""

    def __init__(self, storm: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)) -> None:
        """`storm` says from when to when (Unix times) every request is answered with 503."""
        self._storm = storm
        self._lock = threading.Lock()
        self.sent: Counter[tuple[int, str, bool]] = Counter()
        """By second (Unix time), class, and whether the storm answered."""

    def watch(self, storage: Storage) -> Storage:
        assert isinstance(storage, S3Storage)
        # botocore's stubs say that no handler may answer; its documentation says that this may.
        events: Any = storage.client.meta.events
        events.register("before-send.s3", self._before, unique_id="requests")  # once a client
        return storage

    def by_class(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for (_, name, _), count in self.sent.items():
            found[name] += count
        return dict(sorted(found.items()))

    def _before(self, request: Any, event_name: str, **_: Any) -> AWSResponse | None:
        moment = time.time()
        begin, end = self._storm()
        stormy = begin <= moment < end
        name = CLASSES.get(event_name.rpartition(".")[2], "other")
        with self._lock:
            self.sent[int(moment), name, stormy] += 1
        if not stormy:
            return None
        headers: Any = {"Content-Type": "application/xml"}
        raw: Any = _Body()
        return AWSResponse(request.url, 503, headers, raw)
