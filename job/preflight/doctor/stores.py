"""The store: its clock, and a real read of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from job.dataset.source.find import Buckets, changed, find, readable
from job.dataset.source.objects import Found
from job.errors import Problem, SettingsError
from job.preflight.checks import Finding
from job.storage import S3_SCHEME, Conflict, NotFound
from job.storage.observer import NoObserver

_REFUSED_MINUTES: Final = 15
"""S3 refuses what is signed with a clock that is further off (RequestTimeTooSkewed)."""
_FAILED_SECONDS: Final = 5 * 60
_WARNING_SECONDS: Final = 30


def clock(uri: str) -> str | Finding:
    """This machine's against the store's. Raises `SettingsError`, or `Unavailable` if the store
    doesn't tell."""
    if not uri.startswith(S3_SCHEME):
        return Finding("not checked", f"{uri} is no S3 store, and tells no time")
    from job.storage.s3_client import open_client, seconds_ahead

    ahead = seconds_ahead(open_client(uri, NoObserver()))
    off = abs(ahead)
    if off <= _WARNING_SECONDS:
        return f"within {max(off, 1):.0f} s of the store's"
    said = f"this machine's is {off:.0f} s {'ahead of' if ahead > 0 else 'behind'} the store's"
    hint = f"S3 refuses requests from {_REFUSED_MINUTES} minutes on; set the node's clock (NTP)"
    if off > _FAILED_SECONDS:
        raise SettingsError(Problem("clock", said, hint))
    return Finding("warning", f"{said}; {hint}")


def data(uris: Sequence[str], output_uri: str | None = None) -> str:
    """List it all, and read where each URI begins: that may be forbidden where listing isn't.

    Raises what the data stage does.
    """
    buckets = Buckets()
    found = find(uris, buckets, output_uri)
    for uri in uris:
        first = next((item for item in found if item.uri.startswith(uri)), None)
        if first is not None:
            _read_a_little(first, buckets)
    size = sum(item.size for item in found)
    return f"{len(found)} file(s), {size / 1e6:.1f} MB, can be listed and read"


def _read_a_little(item: Found, buckets: Buckets) -> None:
    if item.etag is None:
        with readable(item.uri), Path(item.uri).open("rb") as file:
            file.read(1)
        return
    storage, key = buckets.locate(item.uri)
    try:
        with storage.stream(key, etag=item.etag, version_id=item.version_id) as chunks:
            next(chunks, b"")
    except (Conflict, NotFound) as error:
        raise changed(item.uri) from error
