"""A sequential stream over a network that breaks off, stalls and lies."""

from __future__ import annotations

import os
import threading

import boto3
import pytest

from job.errors import Unavailable
from job.storage import Conflict, Storage, open_storage, split_s3_uri
from job.storage.s3_faults import STREAM_ATTEMPTS
from job.storage.s3_stream import CHUNK_BYTES
from tests.storage.counts import Counts
from tests.storage.wire import Answer, Call, Cut, Interpose, Rule

SIZE = 2_000_000
CONTENT = os.urandom(SIZE)


def content(storage: Storage, offset: int = 0, **pins: str | None) -> bytes:
    with storage.stream("key", offset, **pins) as chunks:
        return b"".join(chunks)


def first_byte(call: Call) -> int:
    """Of the range that is asked for; every request must go to the end."""
    begin, _, end = call.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
    assert end == ""
    return int(begin)


def cuts(*lengths: int, asked: list[int]) -> Rule:
    """Cuts one answer after the other, so many bytes into it; `asked` are the first bytes."""
    left = iter(lengths)

    def rule(call: Call) -> Cut | None:
        asked.append(first_byte(call))
        after = next(left, None)
        return None if after is None else Cut(after)

    return rule


@pytest.mark.parametrize("pinned", [False, True])
def test_only_what_is_missing_is_asked_for_again(
    interpose: Interpose, bucket: str, pinned: bool
) -> None:
    etag = open_storage(bucket).write("key", CONTENT)
    asked: list[int] = []
    lengths = (700_000, 0, 300_000, 600_000)
    interpose(cuts(*lengths, asked=asked))
    counts = Counts()

    assert content(open_storage(bucket, counts), etag=etag if pinned else None) == CONTENT

    assert counts.bytes == {"received": SIZE}
    assert counts.retries == {"GetObject": len(lengths)}
    assert asked[0] == 0
    assert len(asked) == 1 + len(lengths)
    for before, length, again in zip(asked, lengths, asked[1:], strict=False):
        assert before <= again <= before + length
        assert again > before + length - CHUNK_BYTES, "a whole chunk was fetched twice"


def test_an_offset_is_all_that_is_asked_for(interpose: Interpose, bucket: str) -> None:
    open_storage(bucket).write("key", CONTENT)
    asked: list[int] = []
    interpose(cuts(asked=asked))
    counts = Counts()

    assert content(open_storage(bucket, counts), 1_500_000) == CONTENT[1_500_000:]

    assert asked == [1_500_000]
    assert counts.bytes == {"received": SIZE - 1_500_000}


def test_a_connection_that_stalls_is_replaced(
    interpose: Interpose, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.storage.s3_client._STALLED_SECONDS", 0.5)
    open_storage(bucket).write("key", CONTENT)
    released, stalls = threading.Event(), iter([True])
    interpose(lambda _: Cut(1_000_000, held=released) if next(stalls, False) else None)
    counts = Counts()

    assert content(open_storage(bucket, counts)) == CONTENT

    released.set()
    assert counts.retries["GetObject"] >= 1  # more where the machine itself stalls


def test_without_progress_it_gives_up(interpose: Interpose, bucket: str) -> None:
    open_storage(bucket).write("key", CONTENT)
    asked: list[int] = []
    interpose(cuts(CHUNK_BYTES, *[0] * STREAM_ATTEMPTS, asked=asked))
    counts = Counts()

    with pytest.raises(Unavailable):
        content(open_storage(bucket, counts))

    assert asked == [0] + [CHUNK_BYTES] * (STREAM_ATTEMPTS - 1)
    assert counts.retries == {"GetObject": STREAM_ATTEMPTS - 1}


@pytest.mark.parametrize("pinned", [False, True])
def test_an_object_that_changes_in_the_middle(
    interpose: Interpose, bucket: str, pinned: bool
) -> None:
    direct = open_storage(bucket)
    etag = direct.write("key", CONTENT)

    def change(call: Call) -> Cut | None:
        if first_byte(call) == 0:
            return Cut(1_000_000)
        direct.write("key", CONTENT[::-1])
        return None

    interpose(change)
    with pytest.raises(Conflict):
        content(open_storage(bucket), etag=etag if pinned else None)


def test_a_version_that_is_overwritten_in_the_middle_goes_on(
    interpose: Interpose, bucket: str
) -> None:
    boto3.client("s3").put_bucket_versioning(
        Bucket=split_s3_uri(bucket)[0], VersioningConfiguration={"Status": "Enabled"}
    )
    direct = open_storage(bucket)
    direct.write("key", CONTENT)
    info = direct.stat("key")

    def overwrite(call: Call) -> Cut | None:
        if first_byte(call) == 0:
            direct.write("key", b"new")
            return Cut(1_000_000)
        return None

    interpose(overwrite)
    found = content(open_storage(bucket), etag=info.etag, version_id=info.version_id)
    assert found == CONTENT


def test_a_store_that_ignores_ranges(interpose: Interpose, bucket: str) -> None:
    """It sends everything; what is here already is passed over."""
    open_storage(bucket).write("key", CONTENT)
    broken = iter([True])

    def ignore_ranges(call: Call) -> Cut | None:
        call.headers.pop("Range", None)
        return Cut(900_000) if next(broken, False) else None

    interpose(ignore_ranges)
    assert content(open_storage(bucket)) == CONTENT


def test_a_store_that_ignores_conditions(interpose: Interpose, bucket: str) -> None:
    interpose(lambda _: Answer(200, b"other bytes", {"ETag": '"other"'}))
    with pytest.raises(Conflict, match="has ETag other, not pinned"):
        content(open_storage(bucket), etag="pinned")
