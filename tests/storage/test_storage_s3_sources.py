"""Credentials from agents and programs, and out of Secrets: what fails there is told as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from job.errors import AccessDenied, JobError, SettingsError, Unavailable
from job.storage import open_storage

GIVEN = {
    "AccessKeyId": "key",
    "SecretAccessKey": "secret",
    "Token": "token",
    "Expiration": "2125-01-01T00:00:00Z",
}


class Agent:
    """As those of EKS Pod Identity and of ECS."""

    def __init__(self) -> None:
        self.status = 200
        self.answer: object = GIVEN
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(agent.status)
                self.end_headers()
                self.wfile.write(json.dumps(agent.answer).encode())

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def nothing_given(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def agent(nothing_given: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    from botocore.utils import ContainerMetadataFetcher

    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    agent = Agent()
    threading.Thread(target=agent.server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{agent.server.server_port}/credentials"
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    yield agent
    agent.server.shutdown()
    agent.server.server_close()


@pytest.fixture
def profile(nothing_given: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path / "config"


def written(bucket: str) -> None:
    open_storage(bucket).write("key", b"x")


def test_an_agent_that_serves_them(bucket: str, agent: Agent) -> None:
    written(bucket)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_agent_that_is_just_starting_is_waited_for(
    bucket: str, agent: Agent, status: int
) -> None:
    agent.status = status
    with pytest.raises(Unavailable, match=f"does not serve them.* {status} .*agent on this node"):
        written(bucket)


def test_an_agent_that_is_not_there(bucket: str, agent: Agent) -> None:
    agent.server.server_close()
    with pytest.raises(Unavailable, match="does not serve them"):
        written(bucket)


def test_an_agent_that_refuses(bucket: str, agent: Agent) -> None:
    agent.status = 403
    with pytest.raises(AccessDenied, match="403"):
        written(bucket)


@pytest.mark.parametrize("lacking", GIVEN)
def test_an_agent_that_gives_too_little(bucket: str, agent: Agent, lacking: str) -> None:
    agent.answer = {name: value for name, value in GIVEN.items() if name != lacking}
    with pytest.raises(AccessDenied, match=f"has no '{lacking}'"):
        written(bucket)


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [(503, GIVEN, Unavailable), (403, GIVEN, AccessDenied), (200, {}, AccessDenied)],
)
def test_an_agent_that_fails_under_a_client(
    bucket: str, agent: Agent, status: int, answer: object, expected: type[JobError]
) -> None:
    """Those that run out are asked for again in the middle of a request."""
    agent.answer = GIVEN | {"Expiration": "2001-01-01T00:00:00Z"}
    storage = open_storage(bucket)
    agent.status, agent.answer = status, answer
    with pytest.raises(expected):
        storage.write("key", b"x")
    agent.status, agent.answer = 200, GIVEN
    storage.write("key", b"x")


@pytest.mark.parametrize("url", ["http://example.org/credentials", "nonsense", "http://[::1"])
def test_an_agent_at_no_such_place(
    bucket: str, nothing_given: None, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    with pytest.raises(SettingsError, match="AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        written(bucket)


def test_an_agents_token_that_is_not_mounted(
    bucket: str, agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    with pytest.raises(AccessDenied, match="pod identity"):
        written(bucket)
    token.write_text("secret-token\n")
    with pytest.raises(AccessDenied, match="line end") as refused:
        written(bucket)
    assert "secret-token" not in str(refused.value)


@pytest.mark.parametrize(
    ("program", "expected", "says"),
    [
        ("/bin/false", AccessDenied, "custom-process"),
        ("/bin/echo nonsense", SettingsError, "credential_process"),
        ("/bin/echo {}", AccessDenied, "Unsupported version"),
        ("/no/such/program", SettingsError, "credential_process"),
    ],
)
def test_a_program_that_gives_none(
    bucket: str, profile: Path, program: str, expected: type[JobError], says: str
) -> None:
    profile.write_text(f"[default]\ncredential_process = {program}\n")
    with pytest.raises(expected, match=says):
        written(bucket)


def test_half_a_pair_of_keys(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessDenied, match="missing: AWS_SECRET_ACCESS_KEY"):
        written(bucket)


def test_commands_say_it_without_a_traceback(
    bucket: str, nothing_given: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    done = subprocess.run(
        [sys.executable, "-m", "job", "status", f"{bucket}/out/run"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 77, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"])
def test_a_secret_that_was_made_with_echo(
    bucket: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv(name, "AKIAHUNTER2\n")
    with pytest.raises(AccessDenied, match=f"{name} ends in a line end.*printf") as refused:
        written(bucket)
    assert "HUNTER2" not in str(refused.value)


def test_a_secret_key_that_was_made_with_echo(
    bucket: str, interpose: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No header carries it, so a store only finds that the signature is another one."""
    from tests.storage.wire import s3_error

    interpose(lambda call: s3_error(403, "SignatureDoesNotMatch"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2\n")
    with pytest.raises(AccessDenied, match="AWS_SECRET_ACCESS_KEY ends in a line end") as refused:
        written(bucket)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("value", ["abc", "1.5"])
def test_a_number_of_attempts_that_is_none(
    bucket: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", value)
    with pytest.raises(SettingsError, match=f"AWS_MAX_ATTEMPTS: .*{value}"):
        written(bucket)
