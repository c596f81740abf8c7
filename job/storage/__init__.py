"""Objects in S3 or in a local directory, behind one Protocol.

`open_storage` is the way in. boto3 is imported only once an S3 root is opened.
"""

from __future__ import annotations

from job.errors import Problem, SettingsError
from job.storage.base import Conflict, NotFound, ObjectInfo, Storage
from job.storage.cancellation import Cancellation, Cancelled
from job.storage.conditional import Send, etag_of, send_if_unchanged
from job.storage.faults import NotSupported, disk_is_full
from job.storage.kept import keep
from job.storage.keys import S3_SCHEME, split_s3_uri
from job.storage.local import LocalStorage
from job.storage.observer import Observer
from job.storage.patience import Patience
from job.storage.probe import probe

__all__ = [
    "S3_SCHEME",
    "Cancellation",
    "Cancelled",
    "Conflict",
    "LocalStorage",
    "NotFound",
    "NotSupported",
    "ObjectInfo",
    "Observer",
    "Patience",
    "Send",
    "Storage",
    "disk_is_full",
    "etag_of",
    "keep",
    "open_storage",
    "probe",
    "send_if_unchanged",
    "split_s3_uri",
]


def open_storage(uri: str, observer: Observer | None = None) -> Storage:
    """The storage whose root is `uri`: `s3://bucket/prefix`, or an absolute path.

    No request is made to it yet; `observer` is told of S3 traffic only. Raises `SettingsError` if
    the URI is neither, or if the AWS configuration can't be used (endpoint, profile, region); and
    `AccessDenied` or `Unavailable` where a source of credentials fails that is asked now.
    """
    if uri.startswith(S3_SCHEME):
        from job.storage.s3 import S3Storage

        return S3Storage(uri, observer)
    if uri.startswith("/"):
        return LocalStorage(uri)
    raise SettingsError(Problem(uri or "''", "is neither s3://bucket/prefix nor an absolute path"))
