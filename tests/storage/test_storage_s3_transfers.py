"""Files of any size over a network that breaks off, and what is counted on the way."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import boto3
import pytest

from job.errors import (
    AccessDenied,
    OutOfDisk,
    Preempted,
    Unavailable,
)
from job.lifecycle import StopToken
from job.storage import Conflict, open_storage, split_s3_uri
from tests.storage.counts import Counts
from tests.storage.wire import Answer, Call, Interpose, s3_error


def test_torn_download_is_fetched_again(interpose: Interpose, bucket: str, tmp_path: Path) -> None:
    counts, torn = Counts(), iter([True])

    def tear_once(call: Call) -> Answer | None:
        if call.method == "GET" and next(torn, False):
            whole = {"Content-Range": "bytes 0-999999/1000000", "ETag": '"e"'}
            return Answer(206, b"x" * 1_000_000, whole, sent=300_000)
        return None

    open_storage(bucket).write("key", b"y" * 1_000_000)
    interpose(tear_once)
    open_storage(bucket, counts).download("key", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == b"y" * 1_000_000
    assert counts.retries["GetObject"] == 1
    assert counts.bytes["received"] > 1_000_000


def test_torn_downloads_never_leave_the_final_name(
    interpose: Interpose, bucket: str, tmp_path: Path
) -> None:
    target = tmp_path / "in" / "target"
    whole = {"Content-Range": "bytes 0-999999/1000000", "ETag": '"e"'}
    interpose(lambda call: Answer(206, b"x" * 1_000_000, whole, sent=300_000))

    with pytest.raises(Unavailable):
        open_storage(bucket).download("key", target)

    assert list(target.parent.iterdir()) == []


def test_torn_read_is_tried_again_and_then_unavailable(interpose: Interpose, bucket: str) -> None:
    counts, calls = Counts(), []

    def tear(call: Call) -> Answer:
        calls.append(call)
        return Answer(200, b'{"half": true}', {"ETag": '"e"'}, sent=7)

    interpose(tear)
    with pytest.raises(Unavailable):
        open_storage(bucket, counts).read("key")

    assert len(calls) == 3
    assert counts.retries["GetObject"] == 2


def test_object_that_changes_during_its_download_conflicts(
    interpose: Interpose, bucket: str, tmp_path: Path
) -> None:
    """Parts are asked for under the ETag of the first: no file is made of two versions."""
    direct = open_storage(bucket)
    source = tmp_path / "source"
    source.write_bytes(b"1" * 20 * 1024 * 1024)
    direct.upload("key", source)
    source.write_bytes(b"2" * 20 * 1024 * 1024)

    def change_before_the_second_part(call: Call) -> None:
        if call.headers.get("Range", "").startswith("bytes=16777216"):
            direct.upload("key", source)

    interpose(change_before_the_second_part)
    with pytest.raises(Conflict):
        open_storage(bucket).download("key", tmp_path / "in" / "target")

    assert list((tmp_path / "in").iterdir()) == []


def test_sigterm_during_a_download_ends_it(
    interpose: Interpose, bucket: str, tmp_path: Path
) -> None:
    open_storage(bucket).write("key", b"content")
    token, released, target = StopToken(), threading.Event(), tmp_path / "in" / "target"

    def wait_for_the_signal(call: Call) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        released.wait(60)

    def stop(number: int, frame: object) -> None:
        released.set()
        token.request(Preempted("received SIGTERM"))
        token.check()

    interpose(wait_for_the_signal)
    storage = open_storage(bucket)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Preempted):
            storage.download("key", target)
    finally:
        signal.signal(signal.SIGTERM, before)

    left = [path.name for path in target.parent.iterdir()]
    assert left == [] or (left == ["target"] and target.read_bytes() == b"content")


def test_full_work_volume(bucket: str) -> None:
    storage = open_storage(bucket)
    storage.write("key", b"x" * 100_000)

    with pytest.raises(OutOfDisk, match="FORGE_WORK_DIR"):
        storage.download("key", Path("/dev/full"))


def test_large_files_go_in_parts(bucket: str, tmp_path: Path) -> None:
    counts = Counts()
    storage = open_storage(bucket, counts)
    size = 40 * 1024 * 1024
    (tmp_path / "source").write_bytes(os.urandom(size))

    storage.upload("key", tmp_path / "source")
    storage.download("key", tmp_path / "target")

    info = storage.stat("key")
    assert info.size == size
    assert info.etag.endswith("-3")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert counts.bytes == {"sent": size, "received": size}
    assert not counts.retries


def test_failed_upload_leaves_no_parts(interpose: Interpose, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 40 * 1024 * 1024)
    interpose(lambda call: s3_error(403, "AccessDenied") if "partNumber=2" in call.path else None)

    with pytest.raises(AccessDenied):
        open_storage(bucket).upload("key", tmp_path / "source")

    uploads = boto3.client("s3").list_multipart_uploads(Bucket=split_s3_uri(bucket)[0])
    assert "Uploads" not in uploads


def test_retries_are_counted(interpose: Interpose, bucket: str) -> None:
    counts, failing = Counts(), iter([True])
    interpose(lambda call: s3_error(503, "SlowDown") if next(failing, False) else None)

    open_storage(bucket, counts).write("key", b"x" * 10)

    assert counts.retries == {"PutObject": 1}
    assert counts.bytes == {"sent": 10}


def test_version_pins(bucket: str, tmp_path: Path) -> None:
    name, _ = split_s3_uri(bucket)
    boto3.client("s3").put_bucket_versioning(
        Bucket=name, VersioningConfiguration={"Status": "Enabled"}
    )
    storage = open_storage(bucket)
    etag = storage.write("key", b"old")
    old = storage.stat("key").version_id
    storage.write("key", b"new")

    storage.download("key", tmp_path / "target", etag=etag, version_id=old)
    assert (tmp_path / "target").read_bytes() == b"old"

    boto3.client("s3").delete_object(Bucket=name, Key="key", VersionId=str(old))
    with pytest.raises(Conflict):
        storage.download("key", tmp_path / "gone", version_id=old)
    assert not (tmp_path / "gone").exists()
