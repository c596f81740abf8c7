"""What every verb of an S3 root needs: its names, its client, and what its faults mean."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from job.errors import AccessDenied, Problem, SettingsError
from job.storage.keys import checked_key, split_s3_uri
from job.storage.observer import NoObserver, Observer
from job.storage.s3_connection import Connection, Connections
from job.storage.s3_faults import S3Faults
from job.validators import MayHoldPassword

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_log = logging.getLogger(__name__)

B = TypeVar("B", bound="S3Bucket")
P = ParamSpec("P")
T = TypeVar("T")


class S3Bucket:
    """A bucket and the prefix in it that is the root."""

    def __init__(self, uri: str, observer: Observer | None = None) -> None:
        """Open `uri` without a request to the store. Raises as `open_client` does."""
        self.uri = uri.rstrip("/")
        try:
            self.name, prefix = split_s3_uri(self.uri)
            self.prefix = checked_key(prefix) + "/" if prefix else ""
        except MayHoldPassword as error:
            raise SettingsError(Problem("s3://…", str(error))) from None
        except ValueError as error:
            raise SettingsError(Problem(uri, str(error))) from None
        self.observer = observer or NoObserver()
        self._connections = Connections(self.uri, self.observer)
        endpoint = self.client.meta.endpoint_url
        self.faults = S3Faults(self.uri, self.name, endpoint, self._connections.refuse)

    @property
    def connection(self) -> Connection:
        return self._connections.current

    @property
    def client(self) -> S3Client:
        return self.connection.client

    def full(self, key: str) -> str:
        """The key in the bucket. Raises `ValueError` for one that could leave the root."""
        return self.prefix + checked_key(key)

    def where(self, key: str) -> str:
        """The URI of `key`, for messages."""
        return f"{self.uri}/{key}"

    def where_full(self, full: str) -> str:
        """The URI of a key in the bucket, for messages."""
        return f"s3://{self.name}/{full}"


def signed_anew(verb: Callable[Concatenate[B, P], T]) -> Callable[Concatenate[B, P], T]:
    """Once more where the credentials were refused, with what is found of them now: most callers
    ask once, and what was refused has not been carried out."""

    @wraps(verb)
    def sent(bucket: B, /, *args: P.args, **kwargs: P.kwargs) -> T:
        used = bucket.connection
        try:
            return verb(bucket, *args, **kwargs)
        except AccessDenied as refusal:
            if not used.refused:
                raise
            _log.info("credentials are read anew: %s", refusal)
        return verb(bucket, *args, **kwargs)

    return sent
