"""Later attempts get the bytes that the first one recorded, or a refusal that says what differs."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import boto3
import pytest

from job.dataset import DataFile, DataObject, fetch
from job.demo.s3_server import S3Server
from job.errors import DataChanged, DataError, SettingsError
from job.storage import open_storage
from tests.storage.counts import Counts
from tests.storage.wire import Answer, Call, interposed

LINE = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
OTHER = LINE.replace(b'"b"', b'"c"')


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
def fresh_dir(tmp_path: Path) -> Path:
    """The work volume of another pod."""
    return tmp_path / "fresh"


@pytest.fixture
def versioned(bucket: str) -> str:
    boto3.client("s3").put_bucket_versioning(
        Bucket=bucket.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
    )
    return bucket


def fill(bucket: str, **content: bytes) -> None:
    """`a=b"…"` becomes data/a.jsonl."""
    for name, data in content.items():
        open_storage(bucket).write(f"data/{name}.jsonl", data)


def begin(bucket: str, work_dir: Path) -> list[DataObject]:
    """What the first attempt would record."""
    return [file.source for file in fetch([f"{bucket}/data/"], work_dir)]


def resume(
    bucket: str, pins: list[DataObject], work_dir: Path, counts: Counts | None = None
) -> list[DataFile]:
    return fetch([f"{bucket}/data/"], work_dir, counts, pins)


def upload_in_parts(bucket: str, key: str, parts: list[bytes]) -> None:
    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    upload = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
    done = [
        {
            "PartNumber": n,
            "ETag": client.upload_part(
                Bucket=name, Key=key, UploadId=upload, PartNumber=n, Body=part
            )["ETag"],
        }
        for n, part in enumerate(parts, 1)
    ]
    client.complete_multipart_upload(
        Bucket=name,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": done},  # type: ignore[typeddict-item]
    )


@pytest.mark.parametrize("place", ["bucket", "versioned"])
def test_the_same_objects_in_the_recorded_order(
    request: pytest.FixtureRequest, place: str, work_dir: Path, fresh_dir: Path
) -> None:
    bucket = request.getfixturevalue(place)
    fill(bucket, a=LINE, b=OTHER)
    pins = begin(bucket, work_dir)
    files = resume(bucket, pins[::-1], fresh_dir)
    assert [file.source for file in files] == pins[::-1]
    assert [file.path.read_bytes() for file in files] == [OTHER, LINE]


def test_what_is_here_already_is_not_fetched(bucket: str, work_dir: Path) -> None:
    fill(bucket, a=LINE, b=OTHER)
    pins, counts = begin(bucket, work_dir), Counts()
    files = resume(bucket, pins[::-1], work_dir, counts)
    assert [file.path.read_bytes() for file in files] == [OTHER, LINE]
    assert not counts.bytes


@pytest.mark.parametrize("removed", [False, True])
def test_an_old_version_is_fetched_as_recorded(
    versioned: str,
    work_dir: Path,
    fresh_dir: Path,
    caplog: pytest.LogCaptureFixture,
    removed: bool,
) -> None:
    fill(versioned, a=LINE)
    pins = begin(versioned, work_dir)
    if removed:
        open_storage(versioned).delete(["data/a.jsonl"])
    else:
        fill(versioned, a=OTHER)
    with caplog.at_level(logging.INFO, "job.dataset"):
        [file] = resume(versioned, pins, fresh_dir)
    assert file.path.read_bytes() == LINE
    assert file.source == pins[0]
    was = "removed" if removed else "overwritten"
    assert f"{pins[0].uri} was {was} since; its version {pins[0].version_id} is used" in caplog.text


def test_a_version_that_is_gone(versioned: str, work_dir: Path, fresh_dir: Path) -> None:
    """What lies there now will do if its bytes are right."""
    fill(versioned, a=LINE)
    [pin] = begin(versioned, work_dir)
    fill(versioned, a=LINE)
    name = versioned.removeprefix("s3://")
    boto3.client("s3").delete_object(Bucket=name, Key="data/a.jsonl", VersionId=str(pin.version_id))
    [file] = resume(versioned, [pin], fresh_dir)
    assert (file.source.sha256, file.path.read_bytes()) == (pin.sha256, LINE)
    assert file.source.version_id != pin.version_id

    fill(versioned, a=OTHER)
    now = open_storage(versioned).stat("data/a.jsonl")
    with pytest.raises(DataChanged) as caught:
        resume(versioned, [pin], fresh_dir)
    assert f"version {pin.version_id} -> {now.version_id}" in str(caught.value.problems[0])


def test_the_same_bytes_under_another_etag_are_fine(
    bucket: str, work_dir: Path, fresh_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large = LINE * (6 * 2**20 // len(LINE))
    fill(bucket, a=large)
    pins = begin(bucket, work_dir)
    upload_in_parts(bucket, "data/a.jsonl", [large[: 5 * 2**20], large[5 * 2**20 :]])
    with caplog.at_level(logging.INFO, "job.dataset"):
        [file] = resume(bucket, pins, fresh_dir)
    assert file.path.read_bytes() == large
    assert file.source.sha256 == pins[0].sha256
    assert file.source.etag != pins[0].etag
    assert f"{pins[0].uri} was written anew, with the bytes of the recorded object" in caplog.text


def test_all_that_changed_is_told_at_once_with_both_sides(
    bucket: str, work_dir: Path, fresh_dir: Path
) -> None:
    fill(bucket, a=LINE, b=LINE, c=LINE, d=LINE, e=LINE)
    pins = begin(bucket, work_dir)
    fill(bucket, a=OTHER, c=LINE[:50])
    open_storage(bucket).delete(["data/d.jsonl"])
    storage = open_storage(bucket)
    before, after = (hashlib.sha256(data).hexdigest()[:12] for data in (LINE, OTHER))
    etag = pins[0].etag

    with pytest.raises(DataChanged) as caught:
        resume(bucket, pins, fresh_dir)

    assert isinstance(caught.value, DataError)
    assert caught.value.exit_code == 65
    changed, cut, removed = (str(problem) for problem in caught.value.problems)
    assert changed == (
        f"{bucket}/data/a.jsonl: was changed: ETag {etag} -> {storage.stat('data/a.jsonl').etag}, "
        f"SHA-256 {before} -> {after}"
    )
    assert cut == (
        f"{bucket}/data/c.jsonl: was changed: size in bytes {len(LINE)} -> 50, "
        f"ETag {etag} -> {storage.stat('data/c.jsonl').etag}, SHA-256 {before} -> not read"
    )
    assert removed == (
        f"{bucket}/data/d.jsonl: was removed; it had {len(LINE)} bytes, ETag {etag}, "
        f"SHA-256 {before}"
    )
    assert caught.value.remedy == (
        "restore the objects as they were, or set another FORGE_RUN_ID for a new run "
        "(or train on what is there now: FORGE_ALLOW_FINGERPRINT_CHANGE=data)"
    )


def test_a_refusal_costs_no_download_of_the_rest(
    bucket: str, work_dir: Path, fresh_dir: Path
) -> None:
    fill(bucket, a=LINE * 1000, b=LINE)
    pins, counts = begin(bucket, work_dir), Counts()
    fill(bucket, b=OTHER)
    with pytest.raises(DataChanged):
        resume(bucket, pins, fresh_dir, counts)
    assert counts.bytes == {"received": len(OTHER)}


def test_a_prefix_that_was_emptied(bucket: str, work_dir: Path, fresh_dir: Path) -> None:
    fill(bucket, a=LINE)
    pins = begin(bucket, work_dir)
    open_storage(bucket).delete(["data/a.jsonl"])
    with pytest.raises(DataChanged, match=r"data/a\.jsonl: was removed"):
        resume(bucket, pins, fresh_dir)


def test_other_bytes_under_the_same_etag(
    bucket: str,
    work_dir: Path,
    fresh_dir: Path,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the store says of them, the bytes count."""
    fill(bucket, a=LINE)
    [pin] = begin(bucket, work_dir)

    def lie(call: Call) -> Answer | None:
        return Answer(200, OTHER, {"ETag": f'"{pin.etag}"'}) if call.method == "GET" else None

    with interposed(s3_server, lie) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        with pytest.raises(DataChanged, match=r"a\.jsonl: was changed: SHA-256 \w+ -> \w+;"):
            fetch([pin.uri], fresh_dir, None, [pin])


def test_what_came_later_is_ignored_aloud(
    bucket: str, work_dir: Path, fresh_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(bucket, b=LINE)
    pins = begin(bucket, work_dir)
    fill(bucket, a=OTHER, c=OTHER)
    open_storage(bucket).write("data/README.md", b"")
    with caplog.at_level(logging.WARNING, "job.dataset"):
        files = resume(bucket, pins, fresh_dir)
    assert [file.source for file in files] == pins
    [record] = caplog.records
    assert record.getMessage() == (
        "FORGE_DATASET_URI: 2 objects came after the run began and are ignored: "
        f"{bucket}/data/a.jsonl, {bucket}/data/c.jsonl"
    )


def test_a_bucket_that_is_gone_is_a_setting_to_mend(
    bucket: str, work_dir: Path, fresh_dir: Path
) -> None:
    fill(bucket, a=LINE)
    [pin] = begin(bucket, work_dir)
    elsewhere = DataObject(f"{bucket}-no/a.jsonl", pin.size, pin.etag, None, pin.sha256)
    with pytest.raises(SettingsError, match="does not exist"):
        fetch([elsewhere.uri], fresh_dir, None, [elsewhere])


@pytest.mark.parametrize("named", ["folder", "file"])
def test_local_files(
    tmp_path: Path, work_dir: Path, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "b.jsonl"
    file.write_bytes(LINE)
    uris = [str(folder if named == "folder" else file)]
    pins = [found.source for found in fetch(uris, work_dir)]

    (folder / "a.jsonl").write_bytes(OTHER)
    with caplog.at_level(logging.WARNING, "job.dataset"):
        assert [found.source for found in fetch(uris, work_dir, None, pins)] == pins
    assert len(caplog.records) == (named == "folder")

    file.write_bytes(OTHER)
    with pytest.raises(DataChanged, match=rf"{file}: was changed: SHA-256 \w+ -> \w+"):
        fetch(uris, work_dir, None, pins)
    file.write_bytes(LINE[:10])
    with pytest.raises(DataChanged, match=rf"{file}: was changed: size in bytes {len(LINE)} -> 10"):
        fetch(uris, work_dir, None, pins)
    file.unlink()
    with pytest.raises(DataChanged, match=f"{file}: was removed"):
        fetch(uris, work_dir, None, pins)
