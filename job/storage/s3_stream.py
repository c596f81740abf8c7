"""One object as a sequential stream that survives its connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypedDict

from job.storage.base import Conflict
from job.storage.s3_faults import TORN

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

CHUNK_BYTES: Final = 256 * 1024
"""What is lost at most when a connection breaks, and is fetched again."""


class _Conditions(TypedDict, total=False):
    Range: str
    IfMatch: str
    VersionId: str


class S3Stream:
    """Reads an object from `offset` on, in chunks. After a fault the next call goes on where the
    last whole chunk ended, on a connection of its own.

    The ETag of the first answer, or the one given, is asked for in every later one.
    """

    def __init__(
        self,
        client: Callable[[], S3Client],
        bucket: str,
        key: str,
        offset: int,
        etag: str | None,
        version_id: str | None,
    ) -> None:
        """`client` is asked for before each connection: it may be another one by then."""
        self._client = client
        self._bucket = bucket
        self._key = key
        self._offset = offset
        self._etag = etag
        self._version_id = version_id
        self._body: StreamingBody | None = None

    def next_chunk(self) -> bytes:
        """The next bytes; none at the end. Raises botocore's errors, and `Conflict` for an object
        that is another one by now."""
        if self._body is None:
            self._body = self._open()
        try:
            chunk = self._body.read(CHUNK_BYTES)
        except TORN:
            self.close()
            raise
        self._offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Drop the connection. The stream can still go on."""
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _open(self) -> StreamingBody:
        got = self._client().get_object(Bucket=self._bucket, Key=self._key, **self._conditions())
        body, etag = got["Body"], got["ETag"].strip('"')
        if self._etag not in (None, etag):
            # Some stores ignore the condition.
            body.close()
            raise Conflict(f"s3://{self._bucket}/{self._key}: has ETag {etag}, not {self._etag}")
        self._etag = etag
        _pass_over(body, self._offset - _first_byte(got))
        return body

    def _conditions(self) -> _Conditions:
        conditions: _Conditions = {}
        if self._offset:
            conditions["Range"] = f"bytes={self._offset}-"
        if self._etag is not None:
            conditions["IfMatch"] = f'"{self._etag}"'
        if self._version_id is not None:
            conditions["VersionId"] = self._version_id
        return conditions


def _first_byte(got: GetObjectOutputTypeDef) -> int:
    """Where the answer begins: at 0 if the store, or a proxy before it, ignores ranges."""
    content_range = got.get("ContentRange", "")
    return int(content_range.removeprefix("bytes ").partition("-")[0]) if content_range else 0


def _pass_over(body: StreamingBody, count: int) -> None:
    while count > 0 and (chunk := body.read(min(count, CHUNK_BYTES))):
        count -= len(chunk)
