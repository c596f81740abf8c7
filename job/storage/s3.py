"""Storage in S3, or in anything that speaks its protocol over HTTP.

Importing this imports botocore (a quarter of a second with the client): `open_storage` does it
only when an S3 root is opened. boto3's transfer manager waits for the first file.
"""

from __future__ import annotations

import builtins
import logging
import mimetypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypedDict, TypeVar

from botocore.exceptions import ClientError

from job.errors import AccessDenied, JobError, Problem, SettingsError
from job.storage.base import Conflict, NotFound, ObjectInfo
from job.storage.cancellation import Cancellation
from job.storage.faults import NotSupported
from job.storage.keys import (
    checked_folder,
    checked_key,
    checked_names,
    checked_prefix,
    split_s3_uri,
)
from job.storage.observer import NoObserver, Observer
from job.storage.s3_connection import Connection, Connections
from job.storage.s3_faults import (
    READ_ATTEMPTS,
    STREAM_ATTEMPTS,
    S3Faults,
    again_if_torn,
    is_of_the_batch,
)
from job.storage.s3_stream import S3Stream

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectIdentifierTypeDef

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_DELETE_BATCH: Final = 1000
"""Keys that DeleteObjects takes at most."""


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


class _Listing(TypedDict, total=False):
    Prefix: str
    Delimiter: str
    ContinuationToken: str


def _signed_anew(
    verb: Callable[Concatenate[S3Storage, P], T],
) -> Callable[Concatenate[S3Storage, P], T]:
    """Once more where the credentials were refused, with what is found of them now: most callers
    ask once, and what was refused has not been carried out."""

    @wraps(verb)
    def sent(self: S3Storage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        used = self._connection
        try:
            return verb(self, *args, **kwargs)
        except AccessDenied as refusal:
            if not used.refused:
                raise
            _log.info("credentials are read anew: %s", refusal)
        return verb(self, *args, **kwargs)

    return sent


class S3Storage:
    """A `Storage` whose root is `s3://bucket/prefix`.

    Every verb may raise `Unavailable`, `AccessDenied` or `SettingsError` (no such bucket, a bad
    endpoint) besides what it names, and `ValueError` for a key that could leave the root.
    """

    def __init__(self, uri: str, observer: Observer | None = None) -> None:
        """Open `uri` without a request. Raises `SettingsError` for a bad AWS configuration."""
        try:
            self._bucket, prefix = split_s3_uri(uri.rstrip("/"))
            self._prefix = checked_key(prefix) + "/" if prefix else ""
        except ValueError as error:
            raise SettingsError(Problem(uri, str(error))) from None
        self._uri = uri.rstrip("/")
        self._observer = observer or NoObserver()
        self._quotes_etags = True
        self._connections = Connections(self._uri, self._observer)
        endpoint = self._client.meta.endpoint_url
        self._faults = S3Faults(self._uri, self._bucket, endpoint, self._connections.refuse)

    @property
    def uri(self) -> str:
        return self._uri

    @property
    def _connection(self) -> Connection:
        return self._connections.current

    @property
    def _client(self) -> S3Client:
        return self._connection.client

    @_signed_anew
    def stat(self, key: str) -> ObjectInfo:
        """Raises `NotFound`."""
        with self._faults.mapped(self._where(key)):
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._full(key))
            except ClientError as error:
                raise self._explained(error, key) from error
        # "null" is the version of objects written while versioning is off: it can be overwritten.
        version = head.get("VersionId")
        return ObjectInfo(
            key=key,
            size=head["ContentLength"],
            etag=head["ETag"].strip('"'),
            version_id=None if version == "null" else version,
        )

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """In key order. Folder markers (keys ending in '/') are left out; versions aren't told."""
        for page in self._pages(self._prefix + checked_prefix(prefix)):
            for found in page.get("Contents", []):
                if not found["Key"].endswith("/"):
                    key = found["Key"].removeprefix(self._prefix)
                    yield ObjectInfo(key, found["Size"], found["ETag"].strip('"'))

    def folders(self, prefix: str = "", *, names: str = "") -> Iterator[str]:
        """One request for a thousand of these folders, whatever is in and beside them."""
        full = self._prefix + checked_folder(prefix) + checked_names(names)
        for page in self._pages(full, "/"):
            for found in page.get("CommonPrefixes", []):
                yield found["Prefix"].removeprefix(self._prefix)

    @_signed_anew
    def read(self, key: str) -> tuple[bytes, str]:
        """Content and ETag, from one response. Raises `NotFound`."""
        again = again_if_torn(self._observer, READ_ATTEMPTS)
        with self._faults.mapped(self._where(key)):
            data, etag = again(self._get, self._full(key))
        self._observer.received(len(data))
        return data, etag

    @_signed_anew
    def write(
        self, key: str, data: bytes, *, if_match: str | None = None, if_none_match: bool = False
    ) -> str:
        """Raises `Conflict`; `NotSupported` if the store refuses conditional writes.

        A conditional write whose first answer was lost on the way is sent again by botocore and
        then raises `Conflict` against itself. Only the caller can tell, by reading the object and
        finding its own content there.
        """
        try:
            with self._faults.mapped(self._where(key)):
                put = self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._full(key),
                    Body=data,
                    ContentType=_content_type(key),
                    **self._condition(if_match, if_none_match),
                )
        except NotFound as error:
            raise Conflict(f"{self._where(key)}: is gone, and was to be replaced") from error
        self._observer.sent(len(data))
        return put["ETag"].strip('"')

    @_signed_anew
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
        with self._faults.mapped(self._where(key)):
            self._connection.transfers.upload(
                path,
                self._bucket,
                self._full(key),
                _content_type(key),
                self._condition(if_match, if_none_match),
                cancellation or Cancellation(),
            )

    @_signed_anew
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
            self._connection.transfers.download(
                path,
                self._bucket,
                self._full(key),
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

        @_signed_anew
        def next_chunk(self: S3Storage) -> bytes:
            with self._asked_for(key, etag, version_id):
                chunk: bytes = again(stream.next_chunk)
            self._observer.received(len(chunk))
            return chunk

        again = again_if_torn(self._observer, STREAM_ATTEMPTS)
        with closing(
            S3Stream(lambda: self._client, self._bucket, self._full(key), offset, etag, version_id)
        ) as stream:
            yield iter(partial(next_chunk, self), b"")

    def delete(self, keys: Iterable[str]) -> None:
        """In batches of 1000. Raises after a batch in which any key was refused."""
        remaining = iter(keys)
        while batch := [self._full(key) for key in islice(remaining, _DELETE_BATCH)]:
            try:
                refused = self._delete_batch(batch)
            except JobError as refusal:
                if not is_of_the_batch(refusal):
                    raise
                for full in batch:
                    self._delete_one(full)
            else:
                if refused:
                    raise type(refused[0])(problem for e in refused for problem in e.problems)

    def rephrase(self) -> bool:
        """ETags are quoted, as HTTP has it; older releases of Ceph's gateway take them without."""
        self._quotes_etags = not self._quotes_etags
        return not self._quotes_etags

    def reopened(self, observer: Observer | None = None) -> S3Storage:
        """With connections of its own, and botocore's allowance of retries."""
        other = S3Storage(self._uri, observer)
        other._quotes_etags = self._quotes_etags
        return other

    def forget_uploads(self, prefix: str) -> int:
        """Also 0 where the role may not list or abort uploads, or the store has none."""
        forgotten: list[str] = []
        try:
            self._abort_uploads(self._prefix + checked_prefix(prefix), forgotten)
        except (AccessDenied, NotSupported, NotFound) as refused:
            _log.debug("parts of unfinished uploads stay: %s", refused)
        return len(forgotten)

    @_signed_anew
    def _abort_uploads(self, full: str, aborted: builtins.list[str]) -> None:
        """Adds their keys to `aborted`."""
        with self._faults.mapped(f"s3://{self._bucket}/{full}"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=full):
                for begun in page.get("Uploads", []):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=begun["Key"], UploadId=begun["UploadId"]
                    )
                    aborted.append(begun["Key"])

    def _pages(self, full: str, delimiter: str = "") -> Iterator[ListObjectsV2OutputTypeDef]:
        """The answers to a listing, one request each."""
        asked: _Listing = {"Prefix": full}
        if delimiter:
            asked["Delimiter"] = delimiter
        while True:
            page = self._page(asked)
            yield page
            following = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not following:
                return
            if following == asked.get("ContinuationToken"):
                found = "the store lists the same page again and again"
                raise JobError(Problem(f"s3://{self._bucket}/{full}", found))
            asked["ContinuationToken"] = following

    @_signed_anew
    def _page(self, asked: _Listing) -> ListObjectsV2OutputTypeDef:
        with self._faults.mapped(f"s3://{self._bucket}/{asked['Prefix']}"):
            return self._client.list_objects_v2(Bucket=self._bucket, **asked)

    def _condition(self, if_match: str | None, if_none_match: bool) -> _Condition:
        condition: _Condition = {}
        if if_match is not None:
            condition["IfMatch"] = f'"{if_match}"' if self._quotes_etags else if_match
        if if_none_match:
            condition["IfNoneMatch"] = "*"
        return condition

    def _full(self, key: str) -> str:
        return self._prefix + checked_key(key)

    def _where(self, key: str) -> str:
        return f"{self._uri}/{key}"

    @contextmanager
    def _asked_for(self, key: str, etag: str | None, version_id: str | None) -> Iterator[None]:
        """Faults of a download: that a pinned object isn't there is a broken condition."""
        try:
            with self._faults.mapped(self._where(key)):
                yield
        except NotFound as error:
            if etag is not None or version_id is not None:
                raise Conflict(f"{self._where(key)}: the pinned object is gone") from error
            raise

    def _get(self, full: str) -> tuple[bytes, str]:
        got = self._client.get_object(Bucket=self._bucket, Key=full)
        return got["Body"].read(), got["ETag"].strip('"')

    @_signed_anew
    def _delete_batch(self, batch: builtins.list[str]) -> builtins.list[JobError]:
        """In one request; returns what kept single keys from being deleted."""
        objects: builtins.list[ObjectIdentifierTypeDef] = [{"Key": full} for full in batch]
        with self._faults.mapped(self._uri):
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
            )
        refused = (
            self._faults.translate(
                ClientError({"Error": entry}, "DeleteObjects"),
                f"s3://{self._bucket}/{entry.get('Key', '')}",
            )
            for entry in answer.get("Errors", [])
        )
        return [error for error in refused if isinstance(error, JobError)]

    @_signed_anew
    def _delete_one(self, full: str) -> None:
        # Google's store minds, of single keys, that one isn't there.
        with suppress(NotFound), self._faults.mapped(f"s3://{self._bucket}/{full}"):
            self._client.delete_object(Bucket=self._bucket, Key=full)

    def _explained(self, error: ClientError, key: str) -> Exception:
        """What a failed HEAD means. Its answer has no body, so the code is the bare status: a
        missing bucket looks like a missing key, an expired token like a bad request. A listing
        of that one key says it in words."""
        where = self._where(key)
        plain = self._faults.translate(error, where) or error
        try:
            with self._faults.mapped(where):
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._full(key), MaxKeys=1)
        except AccessDenied as spoken:
            # Who may not list may still be told that a key isn't there.
            return plain if isinstance(plain, NotFound) else spoken
        except JobError as spoken:
            return spoken
        return plain


def _content_type(key: str) -> str:
    """So that a browser shows the report instead of saving it."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"
