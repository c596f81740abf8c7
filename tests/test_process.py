"""The edges of the process: streams that are closed or have no letters, signals, faults of ours."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_main import ROOT, job

STANDARD = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-west-1"}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "FORGE_RUN_ID": "run-1",
        "FORGE_DATASET_URI": str(tmp_path / "данные.jsonl"),
        "FORGE_OUTPUT_URI": str(tmp_path / "out"),
        "FORGE_WORK_DIR": str(tmp_path / "work"),
        "FORGE_METRICS_PORT": "0",
        "FORGE_METRICS_LINGER_SECONDS": "0",
    }


def shell(line: str, env: dict[str, str]) -> int:
    command = ["bash", "-c", f'"{sys.executable}" {line}']
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, check=False).returncode


@pytest.fixture
def silent_store() -> Iterator[socket.socket]:
    """It takes requests, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "doctor"])
def test_letters_that_stdout_lacks_end_no_command(env: dict[str, str], command: str) -> None:
    ended = job(command, **env, PYTHONIOENCODING="ascii")
    assert ended.code == 78
    assert "data set" in ended.out
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_exit_code(
    env: dict[str, str], tmp_path: Path, closed: str
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    run = tmp_path / "out" / "run-1"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{")
    given = env | {"FORGE_TERMINATION_LOG": str(log)}
    assert shell(f"-m job {closed}", given | {"FORGE_SEED": "-1"}) == 78
    assert shell(f"-m job {closed}", given) == 70
    assert "run.json: is not a record" in log.read_text()
    assert shell(f"-m job validate {closed}", env) == 70
    assert (run / "run.json").read_text() == "{", "no message went into a file of ours"


def test_a_termination_log_that_no_file_can_have_changes_no_exit_code() -> None:
    ended = job(FORGE_TERMINATION_LOG="/dev/" + "x" * 300)
    assert ended.code == 78
    assert "no termination message: [Errno 36] File name too long" in ended.err


# -- faults of ours -------------------------------------------------------------------------------


def test_what_nobody_foresaw_is_one_line_and_70(env: dict[str, str]) -> None:
    code = (
        "import sys, tempfile; tempfile.tempdir = '/no/correct-horse'; sys.argv[1:] = ['validate'];"
        "from job.__main__ import cli; cli()"
    )
    del env["FORGE_WORK_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | env | {"SOME_TOKEN": "correct-horse"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 70
    assert done.stderr.startswith("unexpected error: FileNotFoundError: ")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert "correct-horse" not in done.stderr


# -- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_validate_and_leaves_nothing(
    env: dict[str, str], silent_store: socket.socket, tmp_path: Path, number: int, code: int
) -> None:
    url = f"http://127.0.0.1:{silent_store.getsockname()[1]}"
    store = {"AWS_ENDPOINT_URL_S3": url, "FORGE_OUTPUT_URI": "s3://bucket/out"}
    process = subprocess.Popen(
        [sys.executable, "-m", "job", "validate"],
        cwd=ROOT,
        env=os.environ | env | STANDARD | store,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's job in the background ignores it, and so would what this test starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    work = tmp_path / "work"
    with silent_store.accept()[0] as request:
        assert request.recv(1)
        assert list(work.iterdir())
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(work.iterdir()) == []
