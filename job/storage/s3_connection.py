"""A root's client, and the next one once the store has refused the credentials that it holds.

Files and tokens of a pod are renewed under a run of days; botocore keeps what it has read from a
file for as long as its client lives.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from job.errors import JobError
from job.storage.observer import Observer
from job.storage.s3_client import open_client

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from job.storage.s3_transfer import Transfers

_log = logging.getLogger(__name__)


class Connection:
    """Thread-safe."""

    def __init__(self, client: S3Client, observer: Observer) -> None:
        self.client = client
        self.refused = False
        """Whether a request was, for its credentials."""
        self._observer = observer
        self._lock = threading.Lock()
        self._transfers: Transfers | None = None

    @property
    def transfers(self) -> Transfers:
        """Made when first asked for: who only reads a record has no use for them."""
        from job.storage.s3_transfer import Transfers

        with self._lock:
            if self._transfers is None:
                self._transfers = Transfers(self.client, self._observer)
            return self._transfers


class Connections:
    """One after the other. Thread-safe."""

    def __init__(self, uri: str, observer: Observer) -> None:
        """Raises as `open_client` does."""
        self._uri = uri
        self._observer = observer
        self._lock = threading.Lock()
        self._newest = self._open()

    @property
    def current(self) -> Connection:
        """Signs with what boto3's chain finds now, if the one before was refused."""
        with self._lock:
            if self._newest.refused:
                self._renew()
            return self._newest

    def refuse(self) -> None:
        """The store has refused the credentials of the current one."""
        # Another thread may have replaced it meanwhile: then one is opened that is not needed.
        self._newest.refused = True

    def _open(self) -> Connection:
        return Connection(open_client(self._uri, self._observer), self._observer)

    def _renew(self) -> None:
        try:
            self._newest = self._open()
        except JobError as unfit:
            # The file is just being written: the old one is refused again, and then replaced.
            _log.debug("no new client: %s", unfit)
