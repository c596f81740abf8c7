"""Data objects from a real S3 server and from local folders: found, pinned, hashed."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from pathlib import Path

import boto3
import pytest

from job.dataset import Row, fetch, read_rows
from job.dataset.source.bring import bring_found
from job.dataset.source.find import Buckets
from job.dataset.source.objects import Found
from job.errors import DataError, SettingsError
from job.storage import open_storage
from tests.dataset.standin import chat_row, data_file

LINE = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "work"


def test_a_prefix_gives_its_data_in_key_order(
    bucket: str, work_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(bucket)
    stored = {
        "data/b.jsonl.gz": gzip.compress(LINE * 2),
        "data/a.jsonl": LINE,
        "data/deep/c.jsonl": LINE * 3,
    }
    for key, content in {**stored, "data/README.md": b"", "other/d.jsonl": LINE}.items():
        storage.write(key, content)
    with caplog.at_level(logging.INFO, "job.dataset"):
        files = fetch([f"{bucket}/data/"], work_dir)
    assert [file.source.uri for file in files] == [f"{bucket}/{key}" for key in sorted(stored)]
    for file, key in zip(files, sorted(stored), strict=True):
        assert file.source.sha256 == hashlib.sha256(stored[key]).hexdigest()
        assert file.source.size == len(stored[key])
        assert file.source.etag == storage.stat(key).etag
        assert file.path.read_bytes() == stored[key]
    assert [row.line for row in read_rows(files)] == [1, 1, 2, 1, 2, 3]
    assert all(isinstance(row, Row) for row in read_rows(files))
    assert [record.getMessage() for record in caplog.records] == [
        f"{bucket}/data/: 1 objects are no data and are ignored: README.md"
    ]


OWN = ("old/run.json", "old/dataset/quarantine.jsonl", "old/evaluation/answers.jsonl")


@pytest.mark.parametrize(
    ("data", "output", "read"),
    [
        ("proj/", "proj/runs", ["proj/runs-2025.jsonl", "proj/train.jsonl", "proj/x/a.jsonl"]),
        ("proj/", "proj/runs/", ["proj/runs-2025.jsonl", "proj/train.jsonl", "proj/x/a.jsonl"]),
        ("", "proj/runs", ["proj/runs-2025.jsonl", "proj/train.jsonl", "proj/x/a.jsonl"]),
        ("proj/runs/", "proj/runs", ["proj/runs/day/b.jsonl"]),
        ("proj/x/", "proj", ["proj/x/a.jsonl"]),
    ],
)
@pytest.mark.parametrize("local", [False, True])
def test_what_runs_have_written_is_no_data(
    data: str, output: str, read: list[str], local: bool, bucket: str, tmp_path: Path
) -> None:
    root = str(tmp_path / "stored") if local else bucket
    storage = open_storage(root)
    for key in ("proj/train.jsonl", "proj/x/a.jsonl", "proj/runs-2025.jsonl"):
        storage.write(key, LINE)
    storage.write("proj/runs/day/b.jsonl", LINE)
    for key in OWN:
        storage.write(f"proj/runs/{key}", b"{}\n")
    work_dir = tmp_path / "work"
    files = fetch([f"{root}/{data}"], work_dir, output_uri=f"{root}/{output}")
    assert [file.source.uri for file in files] == [f"{root}/{key}" for key in read]
    pins = [file.source for file in files]
    again = fetch([f"{root}/{data}"], work_dir, None, pins, f"{root}/{output}")
    assert [file.source for file in again] == pins


def test_a_relative_folder_may_hold_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(str(tmp_path))
    for key in ("data/a.jsonl", "data/runs/x/dataset/quarantine.jsonl"):
        storage.write(key, LINE)
    monkeypatch.chdir(tmp_path)
    files = fetch(["data"], tmp_path / "work", output_uri=str(tmp_path / "data" / "runs"))
    assert [file.source.uri for file in files] == ["data/a.jsonl"]


def test_several_uris_keep_their_order_and_are_read_once(bucket: str, work_dir: Path) -> None:
    storage = open_storage(bucket)
    for key in ("a.jsonl", "b.jsonl"):
        storage.write(key, LINE)
    files = fetch([f"{bucket}/b.jsonl", f"{bucket}/", f"{bucket}/a.jsonl"], work_dir)
    assert [file.source.uri for file in files] == [f"{bucket}/b.jsonl", f"{bucket}/a.jsonl"]


def test_all_that_is_missing_is_told_at_once(bucket: str, work_dir: Path, tmp_path: Path) -> None:
    uris = [
        f"{bucket}/no.jsonl",
        f"{bucket}-no/a.jsonl",
        f"{bucket}-no/a/",
        str(tmp_path / "no"),
        f"{bucket}/empty/",
    ]
    with pytest.raises(SettingsError) as error:
        fetch(uris, work_dir)
    problems = error.value.problems
    assert [problem.where for problem in problems[:4]] == ["FORGE_DATASET_URI"] * 4
    assert len(problems) == len(uris)
    for uri, problem in zip(uris, problems, strict=True):
        assert uri in str(problem)


@pytest.mark.parametrize("key", [None, "p/x.csv"])
def test_a_prefix_without_data(key: str | None, bucket: str, work_dir: Path) -> None:
    if key:
        open_storage(bucket).write(key, b"")
    with pytest.raises(DataError, match=f"{bucket}/p/: holds no .jsonl"):
        fetch([f"{bucket}/p/"], work_dir)


def test_a_key_that_means_nothing_is_a_setting_to_mend(bucket: str, work_dir: Path) -> None:
    with pytest.raises(SettingsError, match="FORGE_DATASET_URI"):
        fetch([f"{bucket}/a//b.jsonl"], work_dir)


@pytest.mark.parametrize("versioned", [False, True])
def test_an_object_that_changes_meanwhile(versioned: bool, bucket: str, work_dir: Path) -> None:
    """Between the pin and the download; a store that keeps versions still has the pinned one."""
    storage = open_storage(bucket)
    if versioned:
        boto3.client("s3").put_bucket_versioning(
            Bucket=bucket.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
        )
    storage.write("a.jsonl", LINE)
    info = storage.stat("a.jsonl")
    found = Found(f"{bucket}/a.jsonl", info.size, info.etag, info.version_id)
    storage.write("a.jsonl", LINE * 2)
    if versioned:
        assert bring_found(found, work_dir, Buckets()).path.read_bytes() == LINE
    else:
        with pytest.raises(DataError, match="was changed or removed"):
            bring_found(found, work_dir, Buckets())


def test_an_object_that_goes_away_meanwhile(bucket: str, work_dir: Path) -> None:
    with pytest.raises(DataError, match="was changed or removed"):
        bring_found(Found(f"{bucket}/a.jsonl", 1, "0" * 32), work_dir, Buckets())


def test_local_files_are_read_where_they_are(tmp_path: Path, work_dir: Path) -> None:
    file = data_file(tmp_path / "a.jsonl", chat_row("a", "b"))
    [fetched] = fetch([str(file.path)], work_dir)
    assert fetched.path == file.path
    assert fetched.source.etag is None
    assert fetched.source.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert not work_dir.exists()


def test_a_mounted_folder_is_read_once(tmp_path: Path, work_dir: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into a folder called ..data."""
    hidden = tmp_path / "..2026"
    hidden.mkdir()
    data_file(hidden / "b.jsonl", chat_row("a", "b"))
    (tmp_path / "..data").symlink_to(hidden)
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "..data" / "b.jsonl")
    (tmp_path / "sub").mkdir()
    data_file(tmp_path / "sub" / "a.jsonl", chat_row("a", "b"))
    files = fetch([str(tmp_path)], work_dir)
    assert [file.path for file in files] == [tmp_path / "b.jsonl", tmp_path / "sub" / "a.jsonl"]


def test_linked_folders_are_looked_into_once(tmp_path: Path, work_dir: Path) -> None:
    """So a volume of several sources has them: `weather -> ..data/weather`."""
    hidden = tmp_path / "data" / "..2026" / "weather"
    hidden.mkdir(parents=True)
    (hidden / "a.jsonl").write_bytes(b"{}\n")
    folder = tmp_path / "data"
    (folder / "..data").symlink_to("..2026")
    (folder / "weather").symlink_to("..data/weather")
    (folder / "again").symlink_to("weather")
    (folder / "around").symlink_to(".")

    [file] = fetch([str(folder)], work_dir)

    assert file.source.uri == str(folder / "again" / "a.jsonl")


def test_a_link_to_nothing_is_no_data_that_may_be_left_out(tmp_path: Path, work_dir: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_bytes(b"{}\n")
    (tmp_path / "data" / "b.jsonl").symlink_to("unmounted.jsonl")

    with pytest.raises(SettingsError, match=r"b\.jsonl: is a link to nothing"):
        fetch([str(tmp_path / "data")], work_dir)


def test_a_local_path_that_is_no_data(tmp_path: Path, work_dir: Path) -> None:
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(SettingsError, match=r"is not a \.jsonl"):
        fetch([str(tmp_path / "a.csv")], work_dir)
    with pytest.raises(DataError, match="but 1 other objects"):
        fetch([str(tmp_path)], work_dir)


def test_a_local_name_that_can_not_be(tmp_path: Path, work_dir: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_bytes(LINE)
    for uri in (str(tmp_path), str(tmp_path / name)):
        with pytest.raises(SettingsError, match="the name is not UTF-8") as error:
            fetch([uri], work_dir)
        assert b"caf\\xe9.jsonl" in str(error.value).encode()
    with pytest.raises(SettingsError, match="the name is too long"):
        fetch([str(tmp_path / f"{'x' * 300}.jsonl")], work_dir)
