"""What every backend promises, verb by verb."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from job.storage import Conflict, NotFound, Storage, open_storage, probe

KEYS = ["a", "b/c d.txt", "b/é/ü+%20&=?#.bin", "z" * 200, "dotted/..name", ".hidden/x"]
BAD_KEYS = ["", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/..", "./a", "a/.", "a\0b"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_is_read_listed_and_told(storage: Storage, key: str) -> None:
    etag = storage.write(key, b"content")

    assert storage.read(key) == (b"content", etag)
    info = storage.stat(key)
    assert (info.key, info.size, info.etag) == (key, 7, etag)
    assert [(found.key, found.size, found.etag) for found in storage.list()] == [(key, 7, etag)]


def test_etag_follows_the_content(storage: Storage) -> None:
    first = storage.write("key", b"1")
    second = storage.write("key", b"2")

    assert first != second
    assert '"' not in second
    assert storage.stat("key").etag == second


def test_missing_object_is_not_found(storage: Storage, tmp_path: Path) -> None:
    storage.write("there/below", b"")
    for key in ("nowhere", "there", "there/below/more"):
        with pytest.raises(NotFound):
            storage.read(key)
        with pytest.raises(NotFound):
            storage.stat(key)
        with pytest.raises(NotFound):
            storage.download(key, tmp_path / "in" / "target")
        with pytest.raises(NotFound), storage.stream(key) as chunks:
            list(chunks)
    assert list(tmp_path.glob("in/*")) == []


def test_create_only_once(conditional: Storage) -> None:
    conditional.write("key", b"first", if_none_match=True)

    with pytest.raises(Conflict):
        conditional.write("key", b"second", if_none_match=True)
    assert conditional.read("key")[0] == b"first"


def test_replace_only_what_was_read(conditional: Storage) -> None:
    stale = conditional.write("key", b"1")
    fresh = conditional.write("key", b"2", if_match=stale)

    with pytest.raises(Conflict):
        conditional.write("key", b"lost update", if_match=stale)
    assert conditional.read("key") == (b"2", fresh)


def test_replacing_what_is_gone_conflicts(conditional: Storage) -> None:
    etag = conditional.write("key", b"1")
    conditional.delete(["key"])

    with pytest.raises(Conflict):
        conditional.write("key", b"2", if_match=etag)
    with pytest.raises(NotFound):
        conditional.stat("key")


def test_swaps_from_many_threads_lose_nothing(conditional: Storage) -> None:
    conditional.write("counter", b"0")

    def count_up(times: int) -> None:
        done = 0
        while done < times:
            data, etag = conditional.read("counter")
            try:
                conditional.write("counter", str(int(data) + 1).encode(), if_match=etag)
            except Conflict:
                continue
            done += 1

    threads = [threading.Thread(target=count_up, args=(5,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert conditional.read("counter")[0] == b"20"


def test_list_is_sorted_and_below_the_root_only(storage: Storage) -> None:
    keys = ["b", "a/2", "a/10", "a.txt", "a0", "ä", "a/1/x"]
    for key in keys:
        storage.write(key, b"x")
    open_storage(storage.uri + "-neighbour").write("other", b"x")

    assert [found.key for found in storage.list()] == sorted(keys, key=str.encode)
    assert [found.key for found in storage.list("a/")] == ["a/1/x", "a/10", "a/2"]
    assert [found.key for found in storage.list("a/1")] == ["a/1/x", "a/10"]
    assert list(storage.list("nothing")) == []


def test_folders_are_those_directly_below(storage: Storage) -> None:
    for key in ("runs/b/x", "runs/a/deep/er/y", "runs/a-1/z", "runs/file", "other/q", "top"):
        storage.write(key, b"")

    assert list(storage.folders()) == ["other/", "runs/"]
    assert list(storage.folders("runs/")) == ["runs/a-1/", "runs/a/", "runs/b/"]
    assert list(storage.folders("runs/b/")) == []
    assert list(storage.folders("nowhere/")) == []


def test_folders_whose_names_begin_so(storage: Storage) -> None:
    for key in ("runs/a-1/x", "runs/a-2/x", "runs/a/x", "runs/b/x", "a-3/x", "a-file"):
        storage.write(key, b"")

    assert list(storage.folders("runs/", names="a-")) == ["runs/a-1/", "runs/a-2/"]
    assert list(storage.folders(names="a-")) == ["a-3/"]
    assert list(storage.folders(names="..")) == []
    with pytest.raises(ValueError, match="begins no name of a folder"):
        list(storage.folders(names="runs/"))


def test_a_folder_is_gone_with_its_last_object(storage: Storage) -> None:
    storage.write("a/b", b"")
    storage.delete(["a/b"])
    assert list(storage.folders()) == []


@pytest.mark.parametrize("prefix", ["runs", "../", "a//", "/"])
def test_folders_of_what_is_none(storage: Storage, prefix: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        list(storage.folders(prefix))


def test_list_of_an_empty_root(storage: Storage) -> None:
    assert list(storage.list()) == []


@pytest.mark.parametrize("size", [0, 1, 100_000, 17 * 1024 * 1024])
def test_files_make_the_round_trip(storage: Storage, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source file"
    source.write_bytes((b"0123456789abcde" * (size // 15 + 1))[:size])

    storage.upload("files/ünï 1.bin", source)
    storage.download("files/ünï 1.bin", tmp_path / "new" / "folder" / "target")

    assert (tmp_path / "new/folder/target").read_bytes() == source.read_bytes()
    assert names(tmp_path / "new/folder") == ["target"]
    assert storage.stat("files/ünï 1.bin").size == size


def test_pinned_download(storage: Storage, tmp_path: Path) -> None:
    etag = storage.write("key", b"pinned")
    target = tmp_path / "in" / "target"
    storage.download("key", target, etag=etag)
    assert target.read_bytes() == b"pinned"

    storage.write("key", b"another")
    with pytest.raises(Conflict):
        storage.download("key", target, etag=etag)
    storage.delete(["key"])
    with pytest.raises(Conflict):
        storage.download("key", target, etag=etag)

    assert target.read_bytes() == b"pinned"
    assert names(target.parent) == ["target"]


def test_download_replaces(storage: Storage, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"something longer than what comes")
    storage.write("key", b"short")

    storage.download("key", target)

    assert target.read_bytes() == b"short"


@pytest.mark.parametrize("offset", [0, 1, 262_144, 699_999])
def test_stream_from_an_offset(storage: Storage, offset: int) -> None:
    content = bytes(range(256)) * 2735
    etag = storage.write("key", content)

    with storage.stream("key", offset) as chunks:
        assert b"".join(chunks) == content[offset:]
    with storage.stream("key", offset, etag=etag) as chunks:
        assert b"".join(chunks) == content[offset:]


def test_stream_of_an_empty_object(storage: Storage) -> None:
    storage.write("key", b"")
    with storage.stream("key") as chunks:
        assert list(chunks) == []


def test_pinned_stream(storage: Storage) -> None:
    etag = storage.write("key", b"pinned")
    storage.write("key", b"another")
    with pytest.raises(Conflict), storage.stream("key", 2, etag=etag) as chunks:
        list(chunks)
    storage.delete(["key"])
    with pytest.raises(Conflict), storage.stream("key", 2, etag=etag) as chunks:
        list(chunks)


def test_errors_of_who_reads_a_stream_stay_their_own(storage: Storage, tmp_path: Path) -> None:
    storage.write("key", b"content")
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match="below"),
        storage.stream("key") as chunks,
        (tmp_path / "file" / "below").open("wb") as file,
    ):
        file.write(next(chunks))


def test_delete(storage: Storage) -> None:
    for key in ("a", "b/c", "b/d"):
        storage.write(key, b"")

    storage.delete(key for key in ("a", "b/c", "never/was"))
    storage.delete([])

    assert [found.key for found in storage.list()] == ["b/d"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_could_leave_the_root_are_refused(
    storage: Storage, tmp_path: Path, key: str
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(ValueError, match="key"):
        storage.stat(key)
    with pytest.raises(ValueError, match="key"):
        storage.read(key)
    with pytest.raises(ValueError, match="key"):
        storage.write(key, b"x")
    with pytest.raises(ValueError, match="key"):
        storage.upload(key, tmp_path / "file")
    with pytest.raises(ValueError, match="key"):
        storage.download(key, tmp_path / "target")
    with pytest.raises(ValueError, match="key"), storage.stream(key):
        pass
    with pytest.raises(ValueError, match="key"):
        storage.delete([key])
    assert list(storage.list()) == []


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "..", "a//"])
def test_prefixes_of_no_key_are_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        list(storage.list(prefix))


def test_uploading_no_file_says_which(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        storage.upload("key", tmp_path / "nowhere")
    assert list(storage.list()) == []


def test_probe_passes_and_leaves_nothing(conditional: Storage) -> None:
    assert probe(conditional)
    assert list(conditional.list()) == []


@pytest.mark.parametrize("mount", ["size=64k", "ro"])
@pytest.mark.parametrize(
    "verb",
    [
        "storage.download('large', volume / 'target')",
        "keep(storage, storage.stat('large'), volume / 'target')",
    ],
)
def test_work_volume_that_takes_nothing(
    storage: Storage, tmp_path: Path, verb: str, mount: str
) -> None:
    """A real file system that is full, or read-only, in a mount namespace of its own."""
    storage.write("large", b"x" * 1_000_000)
    volume = tmp_path / "volume"
    volume.mkdir()
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mounted = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    if subprocess.run([*unshare, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces")
    script = (
        "import sys, pathlib\n"
        "from job.errors import JobError\n"
        "from job.storage import keep, open_storage\n"
        "storage, volume = open_storage(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
        f"try: {verb}\n"
        "except JobError as error: print(type(error).__name__, error)\n"
        "print('left', [path.name for path in volume.iterdir() if path.name != '.lock'])\n"
    )
    done = subprocess.run(
        [*unshare, mounted, "sh", mount, volume, sys.executable, "-c", script, storage.uri, volume],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("OutOfDisk" if mount.startswith("size") else "SettingsError")
    assert "FORGE_WORK_DIR" in done.stdout
    assert "left []" in done.stdout


def test_another_client_of_the_same_root(conditional: Storage) -> None:
    etag = conditional.write("a", b"1")
    other = conditional.reopened()
    assert other.uri == conditional.uri
    assert other.read("a") == (b"1", etag)
    other.write("a", b"2", if_match=etag)
    assert conditional.read("a")[0] == b"2"
