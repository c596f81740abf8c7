"""Deleting objects from a bucket, and the parts of uploads that nobody ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from job.errors import AccessDenied, JobError
from job.storage.base import NotFound
from job.storage.faults import NotSupported
from job.storage.keys import checked_prefix
from job.storage.s3_bucket import S3Bucket, signed_anew
from job.storage.s3_faults import is_of_the_batch

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

_log = logging.getLogger(__name__)

_DELETE_BATCH: Final = 1000
"""Keys that DeleteObjects takes at most."""


def delete(bucket: S3Bucket, keys: Iterable[str]) -> None:
    """In batches of 1000. Raises after a batch in which any key was refused."""
    remaining = iter(keys)
    while batch := [bucket.full(key) for key in islice(remaining, _DELETE_BATCH)]:
        try:
            refused = _delete_batch(bucket, batch)
        except JobError as refusal:
            if not is_of_the_batch(refusal):
                raise
            for full in batch:
                _delete_one(bucket, full)
        else:
            if refused:
                raise type(refused[0])(problem for e in refused for problem in e.problems)


@signed_anew
def _delete_batch(bucket: S3Bucket, batch: list[str]) -> list[JobError]:
    """In one request; returns what kept single keys from being deleted."""
    objects: list[ObjectIdentifierTypeDef] = [{"Key": full} for full in batch]
    with bucket.faults.mapped(bucket.uri):
        answer = bucket.client.delete_objects(
            Bucket=bucket.name, Delete={"Objects": objects, "Quiet": True}
        )
    refused = (
        bucket.faults.translate(
            ClientError({"Error": entry}, "DeleteObjects"), bucket.where_full(entry.get("Key", ""))
        )
        for entry in answer.get("Errors", [])
    )
    return [error for error in refused if isinstance(error, JobError)]


@signed_anew
def _delete_one(bucket: S3Bucket, full: str) -> None:
    # Google's store minds, of single keys, that one isn't there.
    with suppress(NotFound), bucket.faults.mapped(bucket.where_full(full)):
        bucket.client.delete_object(Bucket=bucket.name, Key=full)


def forget_uploads(bucket: S3Bucket, prefix: str) -> int:
    """How many were aborted; 0 too where the role may not list or abort uploads, or the store has
    none."""
    forgotten: list[str] = []
    try:
        _abort_uploads(bucket, bucket.prefix + checked_prefix(prefix), forgotten)
    except (AccessDenied, NotSupported, NotFound) as refused:
        _log.debug("parts of unfinished uploads stay: %s", refused)
    return len(forgotten)


@signed_anew
def _abort_uploads(bucket: S3Bucket, full: str, aborted: list[str]) -> None:
    """Adds their keys to `aborted`."""
    with bucket.faults.mapped(bucket.where_full(full)):
        pages = bucket.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=bucket.name, Prefix=full):
            for begun in page.get("Uploads", []):
                bucket.client.abort_multipart_upload(
                    Bucket=bucket.name, Key=begun["Key"], UploadId=begun["UploadId"]
                )
                aborted.append(begun["Key"])
