"""Pushing to a hub, by the real client against a real HTTP server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.hub import COMMIT, Hub, serving

TOKEN = "hf_x"
USER = {
    "type": "user",
    "name": "me",
    "orgs": [{"name": "Team"}],
    "auth": {"accessToken": {"role": "write"}},
}

_DO = """
import json, sys
from pathlib import Path
from typing import Any
from job.config import Settings
from job.errors import AccessDenied, JobError
from job.exports import hub
repository, folder = sys.argv[1:]
settings = Settings(
    run_id="r", dataset_uri=("/d",), output_uri="/o", push_to_hub=repository, hub_private=True
)
try:
    if problems := list(hub.denied(settings)):
        raise AccessDenied(problems)
    answer = [0, *hub.push(settings, Path(folder), "Forge Job run r, step 3")]
except JobError as error:
    answer = [error.exit_code, str(error)]
print(json.dumps(answer))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as hub:
        hub.user = dict(USER)
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "adapter"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (made / "README.md").write_text("card")
    return made


def pushed(hub: Hub, folder: Path, repository: str = "team/model", token: str = TOKEN) -> list[Any]:
    """Exit code and what was said, of a process whose hub is ours."""
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(folder.parent / "home")}
    command = [sys.executable, "-c", _DO, repository, str(folder)]
    ended = subprocess.run(
        command,
        env={**env, "PATH": "", "HF_HUB_DISABLE_XET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    answer: list[Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def test_the_folder_arrives_in_one_commit_that_names_the_run(hub: Hub, folder: Path) -> None:
    assert pushed(hub, folder) == [0, f"{hub.url}/team/model", COMMIT]
    (commit,) = hub.commits
    assert (commit.repository, commit.message) == ("team/model", "Forge Job run r, step 3")
    assert commit.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    (created,) = hub.created
    assert created["name"] == "model"
    assert created["organization"] == "team"
    assert True in (created.get("private"), created.get("visibility") == "private")


@pytest.mark.parametrize(
    ("repository", "role", "said"),
    [
        ("team/model", "read", "may only read"),
        ("others/model", "write", "me is not others, and no member of it"),
    ],
)
def test_a_token_that_may_not_is_refused_at_once(
    hub: Hub, folder: Path, repository: str, role: str, said: str
) -> None:
    hub.user["auth"] = {"accessToken": {"role": role}}
    code, answer = pushed(hub, folder, repository)
    assert code == 77
    assert said in answer
    assert not hub.created


def test_no_token_is_refused(hub: Hub, folder: Path) -> None:
    code, answer = pushed(hub, folder, token="")
    assert code == 77
    assert "there is no token" in answer


def test_a_token_that_the_hub_does_not_know_is_refused(hub: Hub, folder: Path) -> None:
    hub.error = (401, "")
    code, answer = pushed(hub, folder)
    assert code == 77
    assert "HF_TOKEN" in answer
    assert "hf_x" not in answer


@pytest.mark.parametrize("path", ["/preupload/", "/commit/main"])
def test_a_push_that_the_hub_refuses_is_no_outage(hub: Hub, folder: Path, path: str) -> None:
    hub.refused = path
    assert pushed(hub, folder)[0] == 77
    assert not hub.commits


def test_a_hub_that_is_down_is_an_outage(hub: Hub, folder: Path) -> None:
    hub.hang_up_on = "/api/whoami"
    assert pushed(hub, folder)[0] == 69
