"""What every backend promises of transfers that are ended, of conditions, and of large numbers."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job.storage import Cancellation, Cancelled, Conflict, Storage, open_storage
from tests.storage.wire import Answer, Call, Interpose, s3_error


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_a_file_in_many_parts(storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 40
    (tmp_path / "large").write_bytes(content)
    storage.upload("large", tmp_path / "large")
    storage.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_more_keys_than_a_page_or_a_batch_holds(storage: Storage) -> None:
    keys = [f"many/{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: storage.write(key, b""), keys))
    assert [info.key for info in storage.list("many/")] == keys
    storage.delete(keys)
    assert list(storage.list()) == []


def test_only_one_of_many_creates_it(conditional: Storage) -> None:
    together = threading.Barrier(8)

    def create(number: int) -> bool:
        together.wait()
        try:
            conditional.write("key", b"%d" % number, if_none_match=True)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number, won in enumerate(pool.map(create, range(8))) if won]
    assert len(winners) == 1
    assert conditional.read("key")[0] == b"%d" % winners[0]


def test_a_file_under_a_condition(conditional: Storage, file: Path) -> None:
    conditional.upload("key", file, if_none_match=True)
    with pytest.raises(Conflict):
        conditional.upload("key", file, if_none_match=True)
    etag = conditional.stat("key").etag
    file.write_bytes(b"newer")
    conditional.upload("key", file, if_match=etag)
    file.write_bytes(b"too late")
    with pytest.raises(Conflict):
        conditional.upload("key", file, if_match=etag)
    assert conditional.read("key")[0] == b"newer"
    conditional.upload("key", file)  # the condition was for those uploads alone
    assert conditional.read("key")[0] == b"too late"


def test_what_is_not_wanted_any_more_is_not_sent(storage: Storage, file: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        storage.upload("key", file, cancellation=cancellation)
    storage.write("there", b"x")
    with pytest.raises(Cancelled):
        storage.download("there", file.with_name("target"), cancellation=cancellation)
    assert not file.with_name("target").exists()


def test_an_upload_that_hangs_can_be_ended(bucket: str, interpose: Interpose, file: Path) -> None:
    reached, over = threading.Event(), threading.Event()

    def hang(call: Call) -> Answer | None:
        if call.method == "PUT":
            reached.set()
            over.wait(60)
        return None

    interpose(hang)
    storage = open_storage(bucket)
    cancellation = Cancellation()
    ended: list[BaseException] = []

    def upload() -> None:
        try:
            storage.upload("key", file, cancellation=cancellation)
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=upload)
    thread.start()
    assert reached.wait(60)
    cancellation.cancel()
    thread.join(30)
    over.set()
    assert not thread.is_alive(), "it waits for the dead connection"
    assert len(ended) == 1


def test_uploads_that_were_never_finished_are_forgotten(bucket: str, aws_env: object) -> None:
    import boto3

    client = boto3.session.Session().client("s3")
    name = bucket.removeprefix("s3://")
    for key in ("out/checkpoints/a", "out/checkpoints/b", "out/other"):
        client.create_multipart_upload(Bucket=name, Key=key)
    storage = open_storage(f"{bucket}/out")
    assert storage.forget_uploads("checkpoints/") == 2
    assert storage.forget_uploads("checkpoints/") == 0
    left = client.list_multipart_uploads(Bucket=name).get("Uploads", [])
    assert [upload["Key"] for upload in left] == ["out/other"]


def test_a_store_that_does_not_list_uploads_is_no_trouble(
    bucket: str, interpose: Interpose
) -> None:
    interpose(lambda call: s3_error(403, "AccessDenied") if "uploads" in call.path else None)
    assert open_storage(bucket).forget_uploads("checkpoints/") == 0
