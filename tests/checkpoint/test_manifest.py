"""A folder and its manifest: there and back, and every way in which the two may disagree."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job.checkpoint import (
    MANIFEST_NAME,
    Manifest,
    Rejected,
    StoredFolder,
    download_folder,
    sha256_file,
    upload_folder,
)
from job.checkpoint.manifest import entry_of, parse
from job.errors import AccessDenied, Unavailable
from job.storage import Conflict, LocalStorage, Storage
from tests.ledger.wrapped import Failing, Wrapped

KEY = "checkpoints/00000050-001/"
FILES = {
    "adapter_model.safetensors": bytes(range(256)) * 40,
    "trainer_state.json": b'{"global_step": 50}',
    "empty": b"",
    "nested/deep er/é.bin": b"\0\1\2",
    "nested/manifest.json": b"of somebody else",
}


def write_files(folder: Path) -> Path:
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "made")


def get(storage: Storage, stored: StoredFolder, into: Path) -> Manifest:
    return download_folder(storage, stored.key, stored.manifest_sha256, into)


# -- there and back -------------------------------------------------------------------------------


def test_there_and_back(storage: Storage, folder: Path, tmp_path: Path) -> None:
    stored = upload_folder(storage, KEY, folder, step=50)
    manifest = get(storage, stored, tmp_path / "back")
    assert read_files(tmp_path / "back") == FILES
    assert (stored.key, stored.bytes) == (KEY, sum(map(len, FILES.values())))
    assert (manifest.step, manifest.total_bytes) == (50, stored.bytes)
    assert {info.key for info in storage.list()} == {KEY + name for name in [*FILES, MANIFEST_NAME]}


def test_what_the_manifest_says(storage: Storage, folder: Path) -> None:
    stored = upload_folder(storage, KEY, folder, step=50)
    data, _ = storage.read(KEY + MANIFEST_NAME)
    assert hashlib.sha256(data).hexdigest() == stored.manifest_sha256
    assert json.loads(data) == {
        "schema_version": 1,
        "step": 50,
        "files": {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(FILES.items(), key=lambda item: Path(item[0]))
        },
    }


def test_the_manifest_is_written_last_and_read_first(
    directory: Storage, folder: Path, tmp_path: Path
) -> None:
    wrapped = Wrapped(directory)
    stored = upload_folder(wrapped, KEY, folder, step=50)
    assert {verb for verb, _ in wrapped.calls[:-1]} == {"upload"}
    assert wrapped.calls[-1] == ("write", KEY + MANIFEST_NAME)
    wrapped.calls.clear()
    get(wrapped, stored, tmp_path / "back")
    assert wrapped.calls[0] == ("read", KEY + MANIFEST_NAME)
    assert {verb for verb, _ in wrapped.calls[1:]} == {"download"}


def test_a_manifest_that_lies_in_the_folder_is_replaced(
    directory: Storage, folder: Path, tmp_path: Path
) -> None:
    (folder / MANIFEST_NAME).write_bytes(b"stale")
    get(directory, upload_folder(directory, KEY, folder, step=50), tmp_path / "back")
    assert read_files(tmp_path / "back") == FILES


def test_links_are_not_followed(directory: Storage, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s3cr3t")
    (folder / "link").symlink_to(outside / "secret")
    (folder / "folder-link").symlink_to(outside)
    (folder / "nested" / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    upload_folder(directory, KEY, folder, step=50)
    assert {info.key.removeprefix(KEY) for info in directory.list()} == {*FILES, MANIFEST_NAME}


def test_a_field_of_a_newer_release_does_no_harm(folder: Path) -> None:
    manifest = Manifest(step=50, files={"empty": entry_of(folder / "empty")})
    data = json.dumps({**manifest.model_dump(), "codec": "zstd"}).encode()
    assert parse(data, hashlib.sha256(data).hexdigest()).step == 50


def test_sha256_of_a_file(tmp_path: Path) -> None:
    content = b"x" * ((1 << 20) + 1)  # more than one block
    (tmp_path / "f").write_bytes(content)
    signs: list[int] = []
    found = sha256_file(tmp_path / "f", lambda: signs.append(1))
    assert found == hashlib.sha256(content).hexdigest()
    assert len(signs) == 2


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "..",
        "/etc/passwd",
        "//evil",
        "a\\b",
        "..\\evil",
        "a//b",
        "./a",
        "a/",
        ".",
        "",
        "a\0b",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(storage: Storage, name: str, tmp_path: Path) -> None:
    """Even with the right SHA-256 in the record: a bucket may be writable by others."""
    entry = {"size": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    data = json.dumps({"step": 1, "files": {name: entry}}).encode()
    storage.write(KEY + MANIFEST_NAME, data)
    (tmp_path / "evil").write_bytes(b"mine")
    with pytest.raises(Rejected, match="outside the folder"):
        download_folder(storage, KEY, hashlib.sha256(data).hexdigest(), tmp_path / "back")
    assert (tmp_path / "evil").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"step": 1}', b'{"step": 1, "files": {"a": {"size": 1}}}', b"\xff"],
)
def test_a_manifest_that_can_not_be_read(
    directory: Storage, content: bytes, tmp_path: Path
) -> None:
    directory.write(KEY + MANIFEST_NAME, content)
    with pytest.raises(Rejected, match=r"manifest\.json can't be read"):
        download_folder(directory, KEY, hashlib.sha256(content).hexdigest(), tmp_path / "back")


def test_a_manifest_that_is_not_the_committed_one(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    stored = upload_folder(storage, KEY, folder, step=50)
    (folder / "empty").write_bytes(b"not any more")
    upload_folder(storage, KEY, folder, step=50)
    with pytest.raises(Rejected, match="is not the one that was committed"):
        get(storage, stored, tmp_path / "back")


def altered(storage: Storage, key: str) -> None:
    data, _ = storage.read(key)
    storage.write(key, data[:-1] + bytes([data[-1] ^ 1]))


def truncated(storage: Storage, key: str) -> None:
    storage.write(key, storage.read(key)[0][:-1])


def lengthened(storage: Storage, key: str) -> None:
    storage.write(key, storage.read(key)[0] + b"\0")


def missing(storage: Storage, key: str) -> None:
    storage.delete([key])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (altered, "has another SHA-256 than was committed"),
        (truncated, "has 2 bytes, 3 were committed"),
        (lengthened, "has 4 bytes, 3 were committed"),
        (missing, "is missing in storage"),
    ],
)
def test_a_damaged_file(
    storage: Storage, folder: Path, tmp_path: Path, damage: Any, reason: str
) -> None:
    stored = upload_folder(storage, KEY, folder, step=50)
    damage(storage, KEY + "nested/deep er/é.bin")
    with pytest.raises(Rejected, match=reason) as caught:
        get(storage, stored, tmp_path / "back")
    assert "é.bin" in str(caught.value)


@pytest.mark.parametrize("damage", [altered, truncated, lengthened, missing])
def test_a_damaged_manifest(storage: Storage, folder: Path, tmp_path: Path, damage: Any) -> None:
    stored = upload_folder(storage, KEY, folder, step=50)
    damage(storage, KEY + MANIFEST_NAME)
    with pytest.raises(Rejected, match=MANIFEST_NAME):
        get(storage, stored, tmp_path / "back")


def test_a_file_that_changes_while_it_is_read(
    directory: Storage, folder: Path, tmp_path: Path
) -> None:
    wrapped = Wrapped(directory, before=Failing("download", "empty", Conflict("empty: changed")))
    stored = upload_folder(wrapped, KEY, folder, step=50)
    with pytest.raises(Rejected, match="changed while it was read: empty"):
        get(wrapped, stored, tmp_path / "back")


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("no")])
def test_faults_of_the_storage_say_nothing_of_the_folder(
    directory: Storage, folder: Path, tmp_path: Path, error: Exception
) -> None:
    stored = upload_folder(directory, KEY, folder, step=50)
    for verb in ("read", "download"):
        wrapped = Wrapped(directory, before=Failing(verb, KEY, error))
        with pytest.raises(type(error)):
            get(wrapped, stored, tmp_path / "back")


@given(data=st.data())
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_changed_byte_of_any_file_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    root, made = tmp_path / "store", tmp_path / "made"
    storage = LocalStorage(root)
    if not made.exists():
        upload_folder(storage, KEY, write_files(made), step=50)
    manifest_sha256 = sha256_file(root / KEY / MANIFEST_NAME)
    names = [name for name, content in FILES.items() if content]
    path = root / KEY / data.draw(st.sampled_from([*names, MANIFEST_NAME]))
    sound = path.read_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != sound[place]))
    path.write_bytes(sound[:place] + bytes([other]) + sound[place + 1 :])
    try:
        with pytest.raises(Rejected):
            download_folder(storage, KEY, manifest_sha256, tmp_path / "back")
    finally:
        path.write_bytes(sound)
    download_folder(storage, KEY, manifest_sha256, tmp_path / "back")
