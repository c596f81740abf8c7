"""The model that a run is to take, before there is a GPU: of a hub, a mirror, a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.config import load_settings
from job.engines.source import mirror
from job.stages.workdir import run_folder
from job.storage import open_storage
from tests.engines.hub import COMMIT, Hub, ask, serving
from tests.environment import python

FILES = {
    "config.json": json.dumps({"model_type": "llama"}).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.files.update(FILES)
        yield hub


@pytest.fixture
def env(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    given = {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": str(tmp_path / "rows.jsonl"),
        "FORGE_OUTPUT_URI": str(tmp_path / "out"),
        "FORGE_MODEL": "owner/name",
        "FORGE_WORK_DIR": str(tmp_path / "work"),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


def look(env: dict[str, str]) -> dict[str, Any]:
    """What `doctor` says of the model, and the code that it ends with."""
    done = python(env, "-m", "job", "doctor", "--json", "--no-gpu")
    [found] = [check for check in json.loads(done.stdout) if check["name"] == "model"]
    assert done.returncode == found["exit_code"], done.stdout
    return dict(found)


def test_a_model_is_found_without_its_weights(
    env: dict[str, str], hub: Hub, tmp_path: Path
) -> None:
    found = look(env)
    assert found["result"] == "ok"
    assert found["detail"].startswith(f"owner/name at {COMMIT[:12]} can be read")
    assert sorted(hub.fetched) == ["config.json", "tokenizer.json"]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("status", "code", "on", "exit_code", "said"),
    [
        (403, "GatedRepo", "/resolve/", 77, "accept its licence"),  # a hub lists it all the same
        (401, "RepoNotFound", "", 78, "the hub has no owner/name"),
    ],
)
def test_a_hub_that_does_not_give_it(
    env: dict[str, str], hub: Hub, status: int, code: str, on: str, exit_code: int, said: str
) -> None:
    hub.error, hub.error_on = (status, code), on
    found = look(env)
    assert found["exit_code"] == exit_code
    assert said in found["detail"]


def test_a_hub_out_of_reach(env: dict[str, str], hub: Hub) -> None:
    hub.hang_up_on = ""
    found = look(env)
    assert found["exit_code"] == 69
    assert "FORGE_MODEL: owner/name can't be fetched from the hub" in found["detail"]


def test_a_hub_out_of_reach_once_an_attempt_has_the_model(env: dict[str, str], hub: Hub) -> None:
    gone = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    folder = run_folder(Path(env["FORGE_WORK_DIR"]), load_settings())
    assert ask(hub, "owner/name", folder, "tokenizer_dir").kind == "folder"
    assert look(env | gone)["exit_code"] == 69, "the weights are still to come"
    assert ask(hub, "owner/name", folder).kind == "folder"
    found = look(env | gone)
    assert found["result"] == "ok", found


def test_a_model_without_weights(env: dict[str, str], hub: Hub) -> None:
    del hub.files["model.safetensors"]
    hub.files |= {"original/model.safetensors": b"not fetched", "consolidated.safetensors": b"nor"}
    found = look(env)
    assert found["exit_code"] == 78
    assert "holds no *.safetensors weights" in found["detail"]


def test_the_model_of_the_exports_is_looked_for_too(
    env: dict[str, str], hub: Hub, tiny_model: Path
) -> None:
    merged = {"FORGE_MODEL": str(tiny_model), "FORGE_EXPORT_BASE_MODEL": "owner/name"}
    hub.hang_up_on = ""
    assert look(env | merged)["result"] == "ok", "nothing is merged"
    assert look(env | merged | {"FORGE_EXPORT": "merged_16bit"})["exit_code"] == 69


def test_a_mirror_and_one_that_lost_its_weights(
    env: dict[str, str], bucket: str, tiny_model: Path
) -> None:
    uri = f"{bucket}/model"
    mirror(str(tiny_model), uri)
    assert look(env | {"FORGE_MODEL": uri})["result"] == "ok"
    open_storage(uri).delete(["model.safetensors"])
    found = look(env | {"FORGE_MODEL": uri})
    assert found["exit_code"] == 78
    assert "model.safetensors is missing" in found["detail"]


def test_it_logs_as_the_run_would(env: dict[str, str], bucket: str, tiny_model: Path) -> None:
    mirror(str(tiny_model), f"{bucket}/model")
    given = env | {"FORGE_MODEL": f"{bucket}/model"}
    for log_format in ("text", "json"):
        done = python(given | {"FORGE_LOG_FORMAT": log_format}, "-m", "job", "doctor", "--no-gpu")
        [line] = [line for line in done.stderr.splitlines() if "model file config.json" in line]
        assert line.startswith("{") is (log_format == "json"), line
