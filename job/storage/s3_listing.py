"""Listing what is in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

from job.errors import JobError, Problem
from job.storage.faults import NotSupported
from job.storage.s3_bucket import S3Bucket, signed_anew

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef


class _Listing(TypedDict, total=False):
    Prefix: str
    Delimiter: str
    ContinuationToken: str


def pages(bucket: S3Bucket, full: str, delimiter: str = "") -> Iterator[ListObjectsV2OutputTypeDef]:
    """The answers to a listing of keys that begin with `full`, one request each."""
    asked: _Listing = {"Prefix": full}
    if delimiter:
        asked["Delimiter"] = delimiter
    while True:
        page = _page(bucket, asked)
        yield page
        if not page.get("IsTruncated"):
            return
        following = page.get("NextContinuationToken")
        if not following:  # it took the request for one of the first version
            found = "the store lists a part of what is there, and doesn't say how to go on"
            hint = "it has to know ListObjectsV2"
            raise NotSupported(Problem(bucket.where_full(full), found, hint))
        if following == asked.get("ContinuationToken"):
            found = "the store lists the same page again and again"
            raise JobError(Problem(bucket.where_full(full), found))
        asked["ContinuationToken"] = following


@signed_anew
def _page(bucket: S3Bucket, asked: _Listing) -> ListObjectsV2OutputTypeDef:
    with bucket.faults.mapped(bucket.where_full(asked["Prefix"])):
        return bucket.client.list_objects_v2(Bucket=bucket.name, **asked)
