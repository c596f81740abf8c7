"""Mirrors: filled once, resumed when cut off, verified by every run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from job.checkpoint import Manifest
from job.engines import ModelSource
from job.engines.source import mirror
from job.errors import SettingsError
from job.storage import open_storage
from job.storage.s3 import S3Storage

FILES = {
    "config.json": json.dumps({"model_type": "llama"}).encode(),
    "tokenizer.json": b"{}",
    "model-1-of-2.safetensors": b"weights" * 1000,
    "model-2-of-2.safetensors": b"more weights",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    ).encode(),
    "modeling_odd.py": b"raise SystemExit('its own code')",
    "README.md": b"a card",
}
MIRRORED = sorted(FILES)
NOT_WEIGHTS = (".py", ".md")
"""Own code, and the card that is there for the licence."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def uri(bucket: str) -> str:
    return f"{bucket}/models/odd"


def keys(uri: str) -> list[str]:
    return [info.key for info in open_storage(uri).list()]


def test_a_model_comes_out_as_it_went_in(folder: Path, uri: str, tmp_path: Path) -> None:
    size = mirror(str(folder), uri)
    assert size == sum(len(FILES[name]) for name in MIRRORED)
    assert keys(uri) == sorted([*MIRRORED, "manifest.json"])
    source = ModelSource(uri, tmp_path / "cache")
    found = source.model_dir()
    fetched = {path.name: path.read_bytes() for path in found.iterdir() if path.is_file()}
    assert fetched == {name: FILES[name] for name in MIRRORED if not name.endswith(NOT_WEIGHTS)}


def test_its_own_code_is_fetched_only_where_it_is_trusted(
    folder: Path, uri: str, tmp_path: Path
) -> None:
    mirror(str(folder), uri)
    trusted = ModelSource(uri, tmp_path / "cache", with_code=True).tokenizer_dir()
    assert (trusted / "modeling_odd.py").is_file()


def test_the_manifest_says_where_the_model_came_from(folder: Path, uri: str) -> None:
    mirror(str(folder), uri)
    origin = ModelSource(str(folder), folder)
    origin.tokenizer_dir()
    manifest = Manifest.model_validate_json(open_storage(uri).read("manifest.json")[0])
    assert manifest.model_extra == {"source": str(folder), "revision": origin.revision}


def test_a_damaged_file_is_refused_and_named(folder: Path, uri: str, tmp_path: Path) -> None:
    mirror(str(folder), uri)
    open_storage(uri).write("model-2-of-2.safetensors", b"MORE WEIGHTS")
    source = ModelSource(uri, tmp_path / "cache")
    source.tokenizer_dir()  # of which nothing is damaged
    with pytest.raises(SettingsError, match=r"model-2-of-2\.safetensors has another SHA-256") as e:
        source.model_dir()
    assert "forge-job mirror" in str(e.value)
    assert not list((tmp_path / "cache").rglob("model-2-of-2.safetensors")), "nor is it kept"


def test_a_missing_file_is_refused_and_named(folder: Path, uri: str, tmp_path: Path) -> None:
    mirror(str(folder), uri)
    open_storage(uri).delete(["model-1-of-2.safetensors"])
    with pytest.raises(SettingsError, match=r"model-1-of-2\.safetensors is missing"):
        ModelSource(uri, tmp_path / "cache").model_dir()


def test_filled_again_with_another_model_nothing_of_the_old_one_stays(
    folder: Path, uri: str, tmp_path: Path
) -> None:
    mirror(str(folder), uri)
    before = ModelSource(uri, tmp_path / "cache")
    before.tokenizer_dir()
    for name in ("model-2-of-2.safetensors", "model.safetensors.index.json", "modeling_odd.py"):
        (folder / name).unlink()
    mirror(str(folder), uri)
    after = ModelSource(uri, tmp_path / "cache")
    after.tokenizer_dir()
    assert keys(uri) == [
        "README.md",
        "config.json",
        "manifest.json",
        "model-1-of-2.safetensors",
        "tokenizer.json",
    ]
    assert before.revision != after.revision


def test_what_a_work_volume_has_of_the_old_model_is_not_loaded(
    folder: Path, uri: str, tmp_path: Path
) -> None:
    """A loader prefers one file of weights to an index, and a template's file to the config's."""
    index = folder / "model.safetensors.index.json"
    sharded = index.read_bytes()
    index.unlink()
    (folder / "model.safetensors").write_bytes(b"old weights")
    (folder / "chat_template.jinja").write_text("old template")
    mirror(str(folder), uri)
    ModelSource(uri, tmp_path / "cache").model_dir()

    (folder / "model.safetensors").unlink()
    (folder / "chat_template.jinja").unlink()
    index.write_bytes(sharded)
    mirror(str(folder), uri)
    found = ModelSource(uri, tmp_path / "cache").model_dir()

    there = {path.name for path in found.iterdir() if path.is_file()}
    assert there == {name for name in MIRRORED if not name.endswith(NOT_WEIGHTS)}


def test_what_is_there_already_is_not_sent_again(folder: Path, uri: str) -> None:
    mirror(str(folder), uri)
    storage = open_storage(uri)
    before = {info.key: storage.stat(info.key) for info in storage.list()}
    storage.delete(["config.json", "manifest.json"])  # as where the first try was cut off
    mirror(str(folder), uri)
    storage.write("model-2-of-2.safetensors", b"MORE WEIGHTS")
    mirror(str(folder), uri)
    assert storage.read("model-2-of-2.safetensors")[0] == FILES["model-2-of-2.safetensors"]
    assert {info.key: info.etag for info in storage.list()} == {
        key: info.etag for key, info in before.items()
    }


# -- what is not the mirror's ---------------------------------------------------------------------


@pytest.fixture(params=["s3", "local"])
def place(request: pytest.FixtureRequest, bucket: str, tmp_path: Path) -> str:
    """Where several things lie, none of them a mirror's."""
    return f"{bucket}/all" if request.param == "s3" else str(tmp_path / "all")


@pytest.mark.parametrize("key", ["llama/config.json", "train.jsonl", "runs/a/run.json"])
def test_what_lies_there_is_named_and_left_alone(folder: Path, place: str, key: str) -> None:
    open_storage(place).write(key, b"theirs")
    with pytest.raises(SettingsError) as refused:
        mirror(str(folder), place)
    assert f"holds what no mirror has left there: {key} (" in str(refused.value)
    assert f"name a folder of its own: {place}/<name>" in str(refused.value)
    assert keys(place) == [key]


def test_it_is_refused_before_the_model_is_brought(place: str) -> None:
    open_storage(place).write("train.jsonl", b"theirs")
    with pytest.raises(SettingsError, match="holds what no mirror has left there"):
        mirror("/no/such/model", place)


def test_an_adapters_manifest_names_nothing_that_a_mirror_may_remove(
    folder: Path, place: str
) -> None:
    """It has the form of a mirror's."""
    storage = open_storage(place)
    entry = {"size": 1, "sha256": "0" * 64}
    manifest = {"step": 9, "files": {"adapter_model.safetensors": entry}}
    storage.write("adapter_model.safetensors", b"a")
    storage.write("manifest.json", json.dumps(manifest).encode())
    before = keys(place)
    with pytest.raises(SettingsError, match=r"left there: manifest\.json"):
        mirror(str(folder), place)
    assert keys(place) == before


def test_weights_that_no_mirror_has_named_are_left_alone(folder: Path, place: str) -> None:
    """Such as those of another model whose first mirror was cut off."""
    open_storage(place).write("odd.safetensors", b"theirs")
    with pytest.raises(SettingsError, match=r"left there: odd\.safetensors"):
        mirror(str(folder), place)
    assert keys(place) == ["odd.safetensors"]


def test_filled_again_a_mirror_removes_its_own_files_only(
    folder: Path, place: str, tmp_path: Path
) -> None:
    mirror(str(folder), place)
    storage = open_storage(place)
    theirs = ["llama/config.json", "runs/a/run.json", "theirs.safetensors", "train.jsonl"]
    for key in theirs:
        storage.write(key, b"theirs")
    (folder / "modeling_odd.py").unlink()
    mirror(str(folder), place)
    own = {"manifest.json", *MIRRORED} - {"modeling_odd.py"}
    assert keys(place) == sorted([*theirs, *own])


def test_what_lies_beside_a_mirrors_files_is_not_loaded(
    folder: Path, uri: str, tmp_path: Path
) -> None:
    mirror(str(folder), uri)
    open_storage(uri).write("theirs.safetensors", b"theirs")
    found = ModelSource(uri, tmp_path / "cache").model_dir()
    assert (found / "model-1-of-2.safetensors").is_file()
    assert not (found / "theirs.safetensors").exists()


def test_a_manifest_that_is_none_is_to_be_removed_first(
    folder: Path, uri: str, tmp_path: Path
) -> None:
    mirror(str(folder), uri)
    open_storage(uri).write("manifest.json", b"{}")
    with pytest.raises(SettingsError, match=r"remove it and fill the mirror anew"):
        ModelSource(uri, tmp_path / "cache").tokenizer_dir()
    with pytest.raises(SettingsError, match=r"left there: manifest\.json"):
        mirror(str(folder), uri)
    open_storage(uri).delete(["manifest.json"])
    mirror(str(folder), uri)
    ModelSource(uri, tmp_path / "cache").model_dir()


def test_a_mirror_that_is_cut_off_still_knows_what_it_has_left(
    folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the new manifest the old one names all there is; after it nothing else is there."""
    mirror(str(folder), uri)
    written, ordinary = list[list[str]](), S3Storage.write

    def write(storage: S3Storage, key: str, data: bytes, **conditions: Any) -> str:
        written.append([key, *keys(uri)])
        return ordinary(storage, key, data, **conditions)

    monkeypatch.setattr(S3Storage, "write", write)
    (folder / "modeling_odd.py").unlink()
    mirror(str(folder), uri)
    left = {"manifest.json", *MIRRORED} - {"modeling_odd.py"}
    assert written == [["manifest.json", *sorted(left)]]


def test_the_command(folder: Path, uri: str, aws_env: dict[str, str], tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "job", "mirror", *arguments],
            env=os.environ | aws_env,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            timeout=60,
        )

    done = run(str(folder), uri)
    assert (done.returncode, uri in done.stdout) == (0, True), done.stderr
    assert keys(uri) == sorted([*MIRRORED, "manifest.json"])
    refused = run(str(tmp_path / "nothing"), uri)
    assert (refused.returncode, "does not exist" in refused.stderr) == (78, True)
    refused = run(str(folder), "models/odd")
    assert (refused.returncode, "give s3://bucket/prefix" in refused.stderr) == (78, True)
