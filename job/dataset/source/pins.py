"""The same bytes in every attempt: the objects that the first one recorded, or a refusal.

A recorded version is fetched as such, whatever lies over it by now. Without one it is what lies
there now whose SHA-256 must be the recorded one; how it came there (another ETag after an upload
in parts, a restore) makes no difference.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from job.dataset.source.bring import bring, bring_found
from job.dataset.source.find import SETTING, Buckets, below, look_up, some
from job.dataset.source.objects import DataFile, DataObject, Found
from job.errors import DataChanged, Problem
from job.storage import Conflict, NotFound

log = logging.getLogger(__name__)

_REMEDY = (
    "restore the objects as they were, or set another FORGE_RUN_ID for a new run "
    "(or train on what is there now: FORGE_ALLOW_FINGERPRINT_CHANGE=data)"
)
_DIGITS = 12
"""Of a SHA-256, in a message."""


def fetch_pinned(
    uris: Sequence[str],
    pins: Sequence[DataObject],
    work_dir: Path,
    buckets: Buckets,
    output_uri: str | None = None,
) -> list[DataFile]:
    """The objects of `pins`, in their order. What else `uris` name is ignored with a warning.

    Raises `DataChanged` with a difference for each object that isn't to be had; what looks
    changed is looked into before anything else is downloaded.
    """
    _warn_of_newcomers([name for uri in uris for name in below(uri, buckets, output_uri)], pins)
    looks = [(pin, look_up(pin.uri, buckets)) for pin in pins]
    files: dict[str, DataFile] = {}
    for doubtful in (True, False):
        problems: list[Problem] = []
        for pin, now in looks:
            if _is_doubtful(pin, now) == doubtful:
                outcome = _bring_pinned(pin, now, work_dir, buckets)
                if isinstance(outcome, DataFile):
                    files[pin.uri] = outcome
                else:
                    problems.append(outcome)
        if problems:
            raise DataChanged(problems, _REMEDY)
    return [files[pin.uri] for pin in pins]


def _is_doubtful(pin: DataObject, now: Found | None) -> bool:
    if pin.version_id is not None:
        return False
    return now is None or (now.size, now.etag) != (pin.size, pin.etag)


def _bring_pinned(
    pin: DataObject, now: Found | None, work_dir: Path, buckets: Buckets
) -> DataFile | Problem:
    file = _bring_version(pin, now, work_dir, buckets) if pin.version_id is not None else None
    if file is None:
        if now is None:
            return Problem(pin.uri, f"was removed; it had {_describe(pin)}")
        if now.size != pin.size:
            return _difference(pin, now)
        file = bring_found(now, work_dir, buckets)
    if file.source.sha256 != pin.sha256 or file.source.size != pin.size:
        return _difference(pin, file.source)
    if file.source.etag != pin.etag:
        log.info("%s was written anew, with the bytes of the recorded object", pin.uri)
    return file


def _bring_version(
    pin: DataObject, now: Found | None, work_dir: Path, buckets: Buckets
) -> DataFile | None:
    """The recorded version; None if it is gone."""
    recorded = Found(pin.uri, pin.size, pin.etag, pin.version_id)
    try:
        file = bring(recorded, work_dir, buckets)
    except (Conflict, NotFound):
        log.warning("%s: its version %s is gone", pin.uri, pin.version_id)
        return None
    if now is None or now.version_id != pin.version_id:
        was = "removed" if now is None else "overwritten"
        log.info("%s was %s since; its version %s is used", pin.uri, was, pin.version_id)
    return file


def _warn_of_newcomers(there: Sequence[str], pins: Sequence[DataObject]) -> None:
    pinned = {pin.uri for pin in pins}
    if new := [name for name in there if name not in pinned]:
        log.warning(
            "%s: %d objects came after the run began and are ignored: %s",
            SETTING,
            len(new),
            some(new),
        )


def _difference(before: DataObject, now: DataObject | Found) -> Problem:
    """What differs; the SHA-256 always, if only to say that the size was enough."""
    sha256 = now.sha256[:_DIGITS] if isinstance(now, DataObject) else "not read"
    fields = [
        ("size in bytes", before.size, now.size),
        ("ETag", before.etag, now.etag),
        ("version", before.version_id, now.version_id),
        ("SHA-256", before.sha256[:_DIGITS], sha256),
    ]
    differing = [f"{name} {was} -> {now_is}" for name, was, now_is in fields if was != now_is]
    return Problem(before.uri, "was changed: " + ", ".join(differing))


def _describe(pin: DataObject) -> str:
    return f"{pin.size} bytes, ETag {pin.etag}, SHA-256 {pin.sha256[:_DIGITS]}"
