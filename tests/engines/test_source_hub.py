"""A model from a hub: its files, and every way the hub can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.hub import COMMIT, Asker, Hub, ask, serving

FILES = {
    "config.json": json.dumps({"model_type": "llama"}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "README.md": b"a card",
    "original/model.safetensors": b"the same weights",
    "consolidated.safetensors": b"the same weights",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.files.update(FILES)
        yield hub


def test_the_tokenizer_comes_without_the_weights_and_the_model_without_duplicates(
    hub: Hub, tmp_path: Path
) -> None:
    with Asker(hub, "owner/name", tmp_path, "tokenizer_dir", "model_dir", "model_dir") as asker:
        tokens = ["README.md", "config.json", "tokenizer.json"]
        first = asker.next()
        assert first.said == tokens
        asker.go_on()
        second = asker.next()
        assert second.said == sorted([*tokens, "model.safetensors"])
        assert 0 < first.beats < second.beats, "a download is no stall"
        assert sorted(hub.fetched) == sorted([*tokens, "model.safetensors"])
        asker.go_on()
        asker.next()
    assert len(hub.fetched) == 4, "a second call fetches nothing"


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code", "said"),
    [
        (404, "RepoNotFound", "SettingsError", 78, "the hub has no owner/name"),
        (401, "RepoNotFound", "SettingsError", 78, "a private model needs HF_TOKEN"),
        (404, "RevisionNotFound", "SettingsError", 78, "the hub has no owner/name"),
        (403, "GatedRepo", "AccessDenied", 77, "accept its licence"),
        (403, "", "AccessDenied", 77, "check HF_TOKEN"),
    ],
)
def test_a_refusal_names_the_setting_and_the_way_out(
    hub: Hub, tmp_path: Path, status: int, code: str, kind: str, exit_code: int, said: str
) -> None:
    hub.error = (status, code)
    answer = ask(hub, "owner/name@main", tmp_path)
    assert (answer.kind, answer.exit_code) == (kind, exit_code)
    assert "FORGE_MODEL" in answer.said
    assert said in answer.said


def test_a_volume_that_the_weights_do_not_fit_on_is_full(
    hub: Hub, volume: Callable[[str], Path]
) -> None:
    hub.files["model.safetensors"] = bytes(1 << 20)
    answer = ask(hub, "owner/name", volume("size=256k"))
    assert (answer.kind, answer.exit_code) == ("OutOfDisk", 70)


def test_a_name_that_no_hub_can_have_is_a_bad_setting(hub: Hub, tmp_path: Path) -> None:
    assert ask(hub, "owner/na..me", tmp_path).kind == "SettingsError"


def test_a_closed_connection_is_unavailable(hub: Hub, tmp_path: Path) -> None:
    hub.hang_up_on = ""
    answer = ask(hub, "owner/name", tmp_path)
    assert (answer.kind, answer.exit_code) == ("Unavailable", 69)
    assert "mirror it to s3://" in answer.said


def test_a_hub_lost_between_tokenizer_and_weights_is_unavailable(hub: Hub, tmp_path: Path) -> None:
    """The library then gives what its cache has: a folder without weights."""
    with Asker(hub, "owner/name", tmp_path, "tokenizer_dir", "model_dir") as asker:
        assert asker.next().kind == "folder"
        hub.hang_up_on = ""
        asker.go_on()
        assert asker.next().kind == "Unavailable"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "holds no config.json"),
        (b"<html>", "describes no model"),
        (b"[1]", "describes no model"),
        (b'{"library": "adapter"}', "describes no model"),
    ],
)
def test_a_repository_that_is_no_model_is_a_bad_setting(
    hub: Hub, tmp_path: Path, config: bytes | None, said: str
) -> None:
    del hub.files["config.json"]
    if config is not None:
        hub.files["config.json"] = config
    answer = ask(hub, "owner/name", tmp_path, "tokenizer_dir")
    assert answer.kind == "SettingsError"
    assert said in answer.said


def test_a_repository_without_weights_is_a_bad_setting(hub: Hub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    del hub.files["consolidated.safetensors"]
    answer = ask(hub, "owner/name", tmp_path)
    assert answer.kind == "SettingsError"
    assert "holds no *.safetensors weights" in answer.said


def test_the_commit_pins_what_follows(hub: Hub, tmp_path: Path) -> None:
    """A branch may move between two attempts: the second asks for the commit, not for the name."""
    with Asker(hub, "owner/name", tmp_path, "tokenizer_dir", revision=COMMIT) as asker:
        assert asker.next().kind == "folder"
    assert hub.revisions == {COMMIT}
