"""A data object's bytes: brought to the work volume, or read where they are, and hashed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from job.dataset.source.find import Buckets, changed, readable
from job.dataset.source.objects import SUFFIXES, DataFile, DataObject, Found
from job.storage import Conflict, NotFound, ObjectInfo, keep


def bring(item: Found, work_dir: Path, buckets: Buckets) -> DataFile:
    """Raises as `job.storage.keep` does: `Conflict` where the object is another one by now."""
    if item.etag is None:
        return _hashed(item.uri)
    path = work_dir / _file_name(item.uri)
    storage, key = buckets.locate(item.uri)
    sha256 = keep(storage, ObjectInfo(key, item.size, item.etag, item.version_id), path)
    return DataFile(DataObject(item.uri, item.size, item.etag, item.version_id, sha256), path)


def bring_found(item: Found, work_dir: Path, buckets: Buckets) -> DataFile:
    """What was there a moment ago. Raises `DataError` if it isn't any more."""
    try:
        return bring(item, work_dir, buckets)
    except (Conflict, NotFound, FileNotFoundError) as error:
        raise changed(item.uri) from error


def _hashed(uri: str) -> DataFile:
    path = Path(uri)
    with readable(uri), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = os.fstat(file.fileno()).st_size
    return DataFile(DataObject(uri, size, None, None, sha256), path)


def _file_name(uri: str) -> str:
    """The same in every attempt. Names from outside stay out of the path; the suffix says how to
    read it."""
    suffix = next(suffix for suffix in reversed(SUFFIXES) if uri.endswith(suffix))
    return hashlib.sha256(uri.encode()).hexdigest()[:16] + suffix
