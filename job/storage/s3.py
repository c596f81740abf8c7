"""Storage in S3, or in anything that speaks its protocol over HTTP.

Importing this imports botocore (a quarter of a second with the client): `open_storage` does it
only when an S3 root is opened. boto3's transfer manager waits for the first file.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TypedDict

from botocore.exceptions import ClientError

from job.errors import AccessDenied, JobError
from job.storage import s3_removal
from job.storage.base import Conflict, NotFound, ObjectInfo
from job.storage.cancellation import Cancellation
from job.storage.keys import checked_folder, checked_names, checked_prefix
from job.storage.observer import Observer
from job.storage.s3_bucket import S3Bucket, signed_anew
from job.storage.s3_faults import READ_ATTEMPTS, STREAM_ATTEMPTS, again_if_torn
from job.storage.s3_listing import pages
from job.storage.s3_stream import S3Stream


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


class S3Storage(S3Bucket):
    """A `Storage` whose root is `s3://bucket/prefix`.

    Every verb may raise `Unavailable`, `AccessDenied` or `SettingsError` (no such bucket, a bad
    endpoint) besides what it names, and `ValueError` for a key that could leave the root.
    """

    def __init__(self, uri: str, observer: Observer | None = None) -> None:
        """Open `uri` without a request to the store. Raises as `open_client` does."""
        super().__init__(uri, observer)
        self._quotes_etags = True

    @signed_anew
    def stat(self, key: str) -> ObjectInfo:
        """Raises `NotFound`."""
        with self.faults.mapped(self.where(key)):
            try:
                head = self.client.head_object(Bucket=self.name, Key=self.full(key))
            except ClientError as error:
                raise self._explained(error, key) from error
            etag = head["ETag"].strip('"')
        # "null" is the version of objects written while versioning is off: it can be overwritten.
        version = head.get("VersionId")
        return ObjectInfo(
            key=key,
            size=head["ContentLength"],
            etag=etag,
            version_id=None if version == "null" else version,
        )

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """In key order. Folder markers (keys ending in '/') are left out; versions aren't told."""
        for page in pages(self, self.prefix + checked_prefix(prefix)):
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):
                    key = found["Key"].removeprefix(self.prefix)
                    yield ObjectInfo(key, found["Size"], found["ETag"].strip('"'))

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        """One request for a thousand of these folders, whatever is in and beside them."""
        full = self.prefix + checked_folder(prefix) + checked_names(names)
        for page in pages(self, full, "/"):
            for found in page.get("CommonPrefixes", []):
                yield found["Prefix"].removeprefix(self.prefix)

    @signed_anew
    def read(self, key: str) -> tuple[bytes, str]:
        """Content and ETag, from one response. Raises `NotFound`."""
        again = again_if_torn(self.observer, READ_ATTEMPTS)
        with self.faults.mapped(self.where(key)):
            data, etag = again(self._get, self.full(key))
        self.observer.received(len(data))
        return data, etag

    @signed_anew
    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        """Raises `Conflict`; `NotSupported` if the store refuses conditional writes.

        A conditional write whose first answer was lost on the way is sent again by botocore and
        then raises `Conflict` against itself. Only the caller can tell, by reading the object and
        finding its own content there.
        """
        try:
            with self.faults.mapped(self.where(key)):
                put = self.client.put_object(
                    Bucket=self.name,
                    Key=self.full(key),
                    Body=data,
                    ContentType=_content_type(key),
                    **self._condition(if_match, if_none_match),
                )
                etag = put["ETag"].strip('"')
        except NotFound as error:
            raise Conflict(f"{self.where(key)}: is gone, and was to be replaced") from error
        self.observer.sent(len(data))
        return etag

    @signed_anew
    def upload(
        self,
        key: str,
        path: Path,
        *,
        cancellation: Cancellation | None = None,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> None:
        """In parts of 16 MiB, several at once. If it fails, the parts are removed again.

        A condition holds for a file in parts where the store knows conditions for those (AWS
        does); others take it for files of less than one part. Raises `Conflict` and `Cancelled`.
        A killed process leaves its parts in the store, invisible, until `forget_uploads`.
        """
        with self.faults.mapped(self.where(key)):
            self.connection.transfers.upload(
                path,
                self.name,
                self.full(key),
                _content_type(key),
                self._condition(if_match, if_none_match),
                cancellation or Cancellation(),
            )

    @signed_anew
    def download(
        self,
        key: str,
        path: Path,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Into a temporary file beside `path`, renamed once it is whole; folders are created.

        Raises `NotFound`, `Conflict` (a pinned object was changed or is gone), `OutOfDisk`, and
        `SettingsError` if `path` can't be written. An object that changes meanwhile is `Conflict`
        too, pinned or not: no file is ever made of two versions.
        """
        with self._asked_for(key, etag, version_id):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.connection.transfers.download(
                path,
                self.name,
                self.full(key),
                etag,
                version_id,
                cancellation or Cancellation(),
            )

    @contextmanager
    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> Iterator[Iterator[bytes]]:
        """A connection that breaks off or stalls is replaced by one that goes on from there; only
        several in a row without a chunk between them are `Unavailable`."""

        @signed_anew
        def next_chunk(self: S3Storage) -> bytes:
            with self._asked_for(key, etag, version_id):
                chunk: bytes = again(stream.next_chunk)
            self.observer.received(len(chunk))
            return chunk

        again = again_if_torn(self.observer, STREAM_ATTEMPTS)
        with closing(
            S3Stream(lambda: self.client, self.name, self.full(key), offset, etag, version_id)
        ) as stream:
            yield iter(partial(next_chunk, self), b"")

    def delete(self, keys: Iterable[str]) -> None:
        """In batches of 1000. Raises after a batch in which any key was refused."""
        s3_removal.delete(self, keys)

    def rephrase(self) -> bool:
        """ETags are quoted, as HTTP has it; older releases of Ceph's gateway take them without."""
        self._quotes_etags = not self._quotes_etags
        return not self._quotes_etags

    def reopened(self, observer: Observer | None = None) -> S3Storage:
        """With connections of its own, and botocore's allowance of retries."""
        other = S3Storage(self.uri, observer)
        other._quotes_etags = self._quotes_etags
        return other

    def forget_uploads(self, prefix: str) -> int:
        """Also 0 where the role may not list or abort uploads, or the store has none."""
        return s3_removal.forget_uploads(self, prefix)

    def _condition(self, if_match: str | None, if_none_match: bool) -> _Condition:
        condition: _Condition = {}
        if if_match is not None:
            condition["IfMatch"] = f'"{if_match}"' if self._quotes_etags else if_match
        if if_none_match:
            condition["IfNoneMatch"] = "*"
        return condition

    @contextmanager
    def _asked_for(self, key: str, etag: str | None, version_id: str | None) -> Iterator[None]:
        """Faults of a download: that a pinned object isn't there is a broken condition."""
        try:
            with self.faults.mapped(self.where(key)):
                yield
        except NotFound as error:
            if etag is not None or version_id is not None:
                raise Conflict(f"{self.where(key)}: the pinned object is gone") from error
            raise

    def _get(self, full: str) -> tuple[bytes, str]:
        got = self.client.get_object(Bucket=self.name, Key=full)
        return got["Body"].read(), got["ETag"].strip('"')

    def _explained(self, error: ClientError, key: str) -> Exception:
        """What a failed HEAD means. Its answer has no body, so the code is the bare status: a
        missing bucket looks like a missing key, an expired token like a bad request. A listing
        of that one key says it in words."""
        where = self.where(key)
        plain = self.faults.translate(error, where) or error
        try:
            with self.faults.mapped(where):
                self.client.list_objects_v2(Bucket=self.name, Prefix=self.full(key), MaxKeys=1)
        except AccessDenied as spoken:
            # Who may not list may still be told that a key isn't there.
            return plain if isinstance(plain, NotFound) else spoken
        except JobError as spoken:
            return spoken
        return plain


def _content_type(key: str) -> str:
    """So that a browser shows the report instead of saving it."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"
