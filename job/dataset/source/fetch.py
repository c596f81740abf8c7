"""The data objects a run trains on: found or recorded, brought to the work volume, hashed.

Every object is pinned by its version or ETag before it is downloaded, and its SHA-256 (over the
bytes as stored, compressed or not) goes into the run's fingerprint. Later attempts get the same
bytes or none: see `job.dataset.source.pins`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from job.dataset.source.bring import bring_found
from job.dataset.source.find import Buckets, find
from job.dataset.source.objects import DataFile, DataObject
from job.dataset.source.pins import fetch_pinned
from job.storage import Observer

__all__ = ["DataFile", "DataObject", "fetch"]


def fetch(
    uris: Sequence[str],
    work_dir: Path,
    observer: Observer | None = None,
    pins: Sequence[DataObject] | None = None,
    output_uri: str | None = None,
) -> list[DataFile]:
    """Find, pin and download what `uris` name, in their order, below a prefix in key order; or,
    given `pins`, exactly those objects in their order.

    What runs have written below `output_uri` is no data. Local files are read where they are; what
    an earlier attempt left in `work_dir` isn't downloaded again. Raises `SettingsError` for what
    doesn't exist (all of it at once), `DataError` for a prefix or folder without data and for an
    object that changes meanwhile, `DataChanged` for pins that are no longer to be had, and what the
    storage raises (`Unavailable`, `AccessDenied`, `OutOfDisk`).
    """
    buckets = Buckets(observer)
    if pins:
        return fetch_pinned(uris, pins, work_dir, buckets, output_uri)
    return [bring_found(item, work_dir, buckets) for item in find(uris, buckets, output_uri)]
