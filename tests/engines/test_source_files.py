"""A model from a folder or an S3 mirror: real files, a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.engines import ModelSource
from job.engines.source import position_limit
from job.errors import SettingsError, Unavailable
from job.metrics import BuildInfo, Metrics
from job.storage import open_storage

PutKeys = Callable[[str, dict[str, bytes]], None]

CONFIG = json.dumps({"model_type": "llama", "max_position_embeddings": 1024}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a model"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "tokenizer.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def shard(folder: Path, *present: str, index: bytes | None = None) -> None:
    """Weights in two shards, of which those named are there."""
    (folder / "model.safetensors").unlink()
    shards = {"a.weight": "model-1-of-2.safetensors", "b.weight": "model-2-of-2.safetensors"}
    content = index or json.dumps({"weight_map": shards}).encode()
    (folder / "model.safetensors.index.json").write_bytes(content)
    for name in present:
        (folder / name).write_bytes(b"weights")


def test_a_folder_is_used_where_it_lies(folder: Path, tmp_path: Path) -> None:
    source = ModelSource(str(folder), tmp_path / "cache")
    assert source.tokenizer_dir() == source.model_dir() == folder
    assert not (tmp_path / "cache").exists()


def test_weights_may_come_in_shards(folder: Path, tmp_path: Path) -> None:
    shard(folder, "model-1-of-2.safetensors", "model-2-of-2.safetensors")
    assert ModelSource(str(folder), tmp_path).model_dir() == folder


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: f.rename(f.with_name("elsewhere")), "does not exist"),
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (
            lambda f: (f / "config.json").write_bytes(b"\xff{"),
            "has a config.json that describes no model",
        ),
        (
            lambda f: (f / "config.json").write_bytes(b"[]"),
            "has a config.json that describes no model",
        ),
        (lambda f: (f / "model.safetensors").unlink(), "holds no *.safetensors weights"),
        (
            lambda f: shard(f, "model-1-of-2.safetensors"),
            "holds no model-2-of-2.safetensors",
        ),
        (
            lambda f: shard(f, "model-1-of-2.safetensors", index=b"{}"),
            "holds no sound model.safetensors.index.json",
        ),
        (
            lambda f: shard(f, "model-1-of-2.safetensors", index=b"garbage"),
            "holds no sound model.safetensors.index.json",
        ),
    ],
)
def test_a_folder_that_holds_no_model_is_refused(
    folder: Path, tmp_path: Path, damage: Damage, said: str
) -> None:
    damage(folder)
    with pytest.raises(SettingsError, match="FORGE_MODEL") as refused:
        ModelSource(str(folder), tmp_path).model_dir()
    assert f"{folder} {said}" in str(refused.value)


def mirror(bucket: str, files: dict[str, bytes]) -> str:
    storage = open_storage(f"{bucket}/models/tiny")
    for name, content in files.items():
        storage.write(name, content)
    return f"{bucket}/models/tiny"


FILES = {
    "config.json": CONFIG,
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same weights",
    "README.md": b"a card",
    "original/model.safetensors": b"the same weights",
}
ESCAPES = {"../config.json": b"an escape", "/tokenizer.json": b"an escape"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_mirror_gives_the_files_that_are_needed_and_no_more(bucket: str, tmp_path: Path) -> None:
    uri = mirror(bucket, FILES)
    source = ModelSource(uri + "/", tmp_path)
    first = ["README.md", "config.json", "tokenizer.json"]
    assert names(source.tokenizer_dir()) == first
    assert names(source.model_dir()) == sorted([*first, "model.safetensors"])
    assert (source.model_dir() / "model.safetensors").read_bytes() == b"weights"


def test_what_a_mirror_sends_is_counted(bucket: str, tmp_path: Path) -> None:
    metrics = Metrics(BuildInfo("1", "reference", "fast_dev", "m"))
    ModelSource(mirror(bucket, FILES), tmp_path, observer=metrics).model_dir()
    needed = ("config.json", "tokenizer.json", "model.safetensors")
    least = sum(len(FILES[name]) for name in needed)
    labels = {"direction": "received"}
    received = metrics.registry.get_sample_value("forge_s3_bytes_total", labels)
    assert received is not None
    assert received >= least


def test_no_key_leads_out_of_the_cache(bucket: str, tmp_path: Path, s3_keys: PutKeys) -> None:
    s3_keys(bucket, {f"models/tiny/{name}": content for name, content in (FILES | ESCAPES).items()})
    cache = tmp_path / "work" / "cache"
    folder = ModelSource(f"{bucket}/models/tiny", cache).model_dir()
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "tokenizer.json").read_bytes() == b"{}"
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents]
    assert outside == []


@pytest.fixture
def s3_keys(aws_env: dict[str, str]) -> PutKeys:
    """Puts objects under keys that the project's own storage would refuse to write."""
    import boto3

    client = boto3.client("s3")

    def put(bucket: str, objects: dict[str, bytes]) -> None:
        for key, content in objects.items():
            client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=content)

    return put


def test_a_second_call_downloads_nothing(bucket: str, tmp_path: Path) -> None:
    source = ModelSource(mirror(bucket, FILES), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in source.model_dir().iterdir()}
    after = {path: path.stat().st_mtime_ns for path in source.model_dir().iterdir()}
    assert before == after


def test_weights_that_changed_in_the_mirror_are_fetched_anew(bucket: str, tmp_path: Path) -> None:
    """Other weights of a model have the same size."""
    before = ModelSource(mirror(bucket, FILES), tmp_path)
    before.model_dir()
    after = ModelSource(mirror(bucket, {"model.safetensors": b"WEIGHTS"}), tmp_path)
    assert (after.model_dir() / "model.safetensors").read_bytes() == b"WEIGHTS"
    assert before.revision != after.revision


def test_two_mirrors_share_no_file(bucket: str, tmp_path: Path) -> None:
    first = ModelSource(mirror(bucket, FILES), tmp_path).model_dir()
    other = open_storage(f"{bucket}/other")
    other.write("config.json", CONFIG)
    with pytest.raises(SettingsError, match=r"holds no \*\.safetensors"):
        ModelSource(f"{bucket}/other", tmp_path).model_dir()
    assert names(first) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_weights_that_change_between_tokenizer_and_weights_are_not_mixed(
    bucket: str, tmp_path: Path
) -> None:
    source = ModelSource(mirror(bucket, FILES), tmp_path)
    source.tokenizer_dir()
    mirror(bucket, {"model.safetensors": b"WEIGHTS"})
    with pytest.raises(Unavailable, match=r"model\.safetensors was changed while it was fetched"):
        source.model_dir()


def test_a_folder_is_known_by_its_bytes(folder: Path, tmp_path: Path) -> None:
    def revision() -> str:
        source = ModelSource(str(folder), tmp_path)
        source.tokenizer_dir()
        return source.revision

    first = revision()
    assert first == revision()
    (folder / "README.md").write_text("no part of the model")
    assert first == revision()
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    assert first != revision()


def test_a_prefix_without_objects_is_refused(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        ModelSource(f"{bucket}/nothing", tmp_path).tokenizer_dir()


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"max_position_embeddings": None}, None),
        ({}, None),
    ],
)
def test_position_limit_is_read_from_the_config(
    folder: Path, config: dict[str, object], limit: int | None
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    assert position_limit(folder) == limit


@contextmanager
def another_user() -> Iterator[None]:
    """Root reads everything; the container's user doesn't."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(12345)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "."])
def test_a_mounted_model_of_another_user_is_refused_with_the_file(folder: Path, name: str) -> None:
    place = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        mounted = Path(shutil.copytree(folder, place / "model"))
        for path in (place, mounted):
            path.chmod(0o755)
        (mounted / name).chmod(0)
        with another_user(), pytest.raises(SettingsError, match=r"can't be read by user") as error:
            ModelSource(str(mounted), place / "cache").model_dir()
        assert str(mounted / name) in str(error.value)
        assert "chmod -R a+rX" in str(error.value)
    finally:
        shutil.rmtree(place)
