"""What only a directory can do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import pytest

from job.errors import AccessDenied, JobError, OutOfDisk, SettingsError
from job.storage import Conflict, LocalStorage, open_storage
from job.storage.local_files import root_fault
from tests.ledger.wrapped import wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_links_out_of_the_root_are_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root.mkdir()
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    storage = LocalStorage(root)

    for key in ("file", "folder/secret"):
        with pytest.raises(AccessDenied, match="leads out"):
            storage.read(key)
        with pytest.raises(AccessDenied, match="leads out"):
            storage.write(key, b"overwritten")
        with pytest.raises(AccessDenied, match="leads out"):
            storage.delete([key])
    assert list(storage.list()) == []
    assert (outside / "secret").read_text() == "secret"


def test_mounted_config_map_is_listed_once(root: Path) -> None:
    """Kubernetes' layout: the files are links to the current generation of a hidden folder."""
    generation = root / "..2026_11_23"
    generation.mkdir(parents=True)
    (generation / "data.jsonl").write_text("{}")
    (root / "..data").symlink_to(generation.name)
    (root / "data.jsonl").symlink_to("..data/data.jsonl")

    storage = LocalStorage(root)

    assert [found.key for found in storage.list()] == ["data.jsonl"]
    assert storage.read("data.jsonl")[0] == b"{}"


def test_reading_changes_nothing(root: Path) -> None:
    root.mkdir()
    (root / "data.jsonl").write_text("{}")
    storage = LocalStorage(root)

    storage.read("data.jsonl")
    storage.stat("data.jsonl")
    assert len(list(storage.list())) == 1
    assert [path.name for path in root.iterdir()] == ["data.jsonl"]


def test_its_own_folder_is_out_of_reach(root: Path) -> None:
    storage = LocalStorage(root)
    storage.write("key", b"")

    with pytest.raises(ValueError, match="own"):
        storage.read(".forge-storage/lock")


def test_nothing_unfinished_is_left(root: Path) -> None:
    storage = LocalStorage(root)
    storage.write("key", b"1")
    with pytest.raises(Conflict):
        storage.write("key", b"2", if_none_match=True)

    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert sorted(files) == [".forge-storage/lock", "key"]


def unfinished(root: Path) -> list[Path]:
    private = root / ".forge-storage"
    return [path for path in private.glob("*") if path.name != "lock"]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A source whose upload is under way for as long as we have it `held`."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def held(fifo: Path) -> FileIO:
    return FileIO(fifo, "r+")


def test_what_a_killed_writer_has_left_is_forgotten(root: Path, fifo: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from job.storage import open_storage\n"
        "open_storage(sys.argv[1]).upload('key', Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, str(root), str(fifo)]
    with subprocess.Popen(command) as writer, held(fifo):
        wait_until(lambda: bool(unfinished(root)))
        writer.kill()
        writer.wait()
    storage = LocalStorage(root)

    assert storage.forget_uploads("checkpoints/") == 1
    assert unfinished(root) == []
    assert storage.forget_uploads("checkpoints/") == 0


def test_what_is_being_written_is_not_forgotten(root: Path, fifo: Path) -> None:
    """Such as the record, by the heartbeat, while the uploader tidies up."""
    storage = LocalStorage(root)
    with ThreadPoolExecutor(1) as pool:
        with held(fifo) as source:
            upload = pool.submit(storage.upload, "key", fifo)
            wait_until(lambda: bool(unfinished(root)))
            assert LocalStorage(root).forget_uploads("") == 0
            source.write(b"content")
        upload.result()

    assert storage.read("key")[0] == b"content"


def test_a_writer_whose_lock_was_not_seen_fails(root: Path, fifo: Path) -> None:
    """On another node, where the file system's locks don't reach."""
    storage = LocalStorage(root)
    with ThreadPoolExecutor(1) as pool:
        with held(fifo):
            upload = pool.submit(storage.upload, "key", fifo)
            wait_until(lambda: bool(unfinished(root)))
            unfinished(root)[0].unlink()
        with pytest.raises(JobError, match="key: No such file"):
            upload.result()

    assert list(storage.list()) == []


def test_nothing_to_forget_where_nothing_was_written(root: Path) -> None:
    assert LocalStorage(root).forget_uploads("") == 0
    assert not root.exists()


def test_emptied_folders_go(root: Path) -> None:
    storage = LocalStorage(root)
    storage.write("a/b/c", b"")
    storage.write("a/kept", b"")

    storage.delete(["a/b/c"])

    assert [path.name for path in (root / "a").iterdir()] == ["kept"]


def test_version_of_a_store_without_versions(root: Path, tmp_path: Path) -> None:
    storage = LocalStorage(root)
    storage.write("key", b"1")

    with pytest.raises(Conflict):
        storage.download("key", tmp_path / "target", version_id="v1")
    assert not (tmp_path / "target").exists()


def test_key_that_is_a_folder_of_another(root: Path) -> None:
    storage = LocalStorage(root)
    storage.write("a/b", b"")

    with pytest.raises(JobError, match=str(root / "a")):
        storage.write("a", b"")
    assert [found.key for found in storage.list()] == ["a/b"]


def test_swaps_from_several_processes_lose_nothing(root: Path) -> None:
    storage = LocalStorage(root)
    storage.write("counter", b"0")
    script = (
        "import sys\n"
        "from job.storage import Conflict, open_storage\n"
        "storage, done = open_storage(sys.argv[1]), 0\n"
        "while done < 25:\n"
        "    data, etag = storage.read('counter')\n"
        "    try: storage.write('counter', str(int(data) + 1).encode(), if_match=etag)\n"
        "    except Conflict: continue\n"
        "    done += 1\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", script, str(root)]) for _ in range(3)]

    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert storage.read("counter")[0] == b"75"


def test_full_disk_names_the_root() -> None:
    with pytest.raises(OSError, match="No space") as full, Path("/dev/full").open("wb") as file:
        file.write(b"x")

    fault = root_fault(full.value, "/runs/key")

    assert isinstance(fault, OutOfDisk)
    assert "/runs/key" in str(fault)


@pytest.mark.parametrize("uri", ["relative/path", "", "gs://bucket/x", "s3://", "s3://b/../c"])
def test_roots_that_are_none(uri: str) -> None:
    with pytest.raises(SettingsError):
        open_storage(uri)


def test_boto3_is_not_imported_for_a_directory() -> None:
    script = (
        "import sys\n"
        "from job.storage import open_storage\n"
        "open_storage('/nowhere')\n"
        "assert not {'boto3', 'botocore', 's3transfer'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
