"""`python -m job` as a container starts it: exit codes, and the one line that Kubernetes keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.__main__ import _write_termination_message
from job.ledger import Ledger
from job.storage import open_storage

ROOT = Path(__file__).resolve().parent.parent


class Ended:
    """A process that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


def job(*arguments: str, **env: str) -> Ended:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    done = subprocess.run(
        [sys.executable, "-m", "job", *arguments],
        cwd=ROOT,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file that the kubelet puts there."""
    path = tmp_path / "termination-log"
    path.touch()
    return path


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["run"], ["validate"]])
def test_nothing_is_set(command: list[str]) -> None:
    ended = job(*command)
    assert ended.code == 78
    for name in ("FORGE_RUN_ID", "FORGE_DATASET_URI", "FORGE_OUTPUT_URI"):
        assert f"{name}: is required and not set" in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == "", "stdout is for results"


def test_a_misspelled_name_and_a_bad_value_at_once(log: Path) -> None:
    ended = job(
        FORGE_TERMINATION_LOG=str(log), FORGE_RUN_ID="r", FORGE_MAX_STPES="5", FORGE_SEED="x"
    )
    assert ended.code == 78
    line = log.read_text()
    assert line.startswith("exit 78: bad setting: 4 problems:")
    assert "FORGE_MAX_STPES: is not a setting (did you mean FORGE_MAX_STEPS?)" in line
    assert "FORGE_SEED" in line
    assert "FORGE_DATASET_URI: is required" in line


# -- the termination message ----------------------------------------------------------------------


def test_the_message_is_one_line(log: Path) -> None:
    log.write_text("of an earlier container\n" * 500)
    assert job(FORGE_TERMINATION_LOG=str(log)).code == 78
    text = log.read_text()
    assert text.startswith("exit 78: bad setting: 3 problems: - FORGE_")
    assert text.count("\n") == 1
    assert text.endswith("\n")


def test_names_from_outside_do_not_repaint_a_terminal(log: Path, tmp_path: Path) -> None:
    """`kubectl describe` shows the message as it is."""
    folder = tmp_path / "data\x1b[2J\x9b31m"
    folder.mkdir()
    (folder / "a.jsonl").write_text("no JSON\n")
    env = {
        "FORGE_RUN_ID": "r",
        "FORGE_OUTPUT_URI": str(tmp_path / "out"),
        "FORGE_DATASET_URI": f"{folder}/",
        "FORGE_MODEL": "/nowhere\x1b[2J\x9b31m",
        "FORGE_METRICS_PORT": "0",
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_TERMINATION_LOG": str(log),
    }
    assert job(**env).code == 78
    texts = [
        log.read_text(),
        job("validate", **env).out,
        job("mirror", "/\x1b[2J\x9b31m", str(tmp_path / "m")).err,
    ]
    for text in texts:
        assert "\\x1b[2J\\x9b31m" in text
        assert not {"\x1b", "\x9b"} & set(text)


def test_no_file_is_made_where_the_kubelet_put_none(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert job(FORGE_TERMINATION_LOG=str(path)).code == 78
    assert not path.exists()


def test_a_file_that_can_not_be_written_changes_no_exit_code(tmp_path: Path) -> None:
    ended = job(FORGE_TERMINATION_LOG=str(tmp_path))
    assert ended.code == 78
    assert "no termination message" in ended.err


def test_secrets_are_masked_in_message_and_log(log: Path) -> None:
    secret = "correct-horse-battery"
    named_by_mistake = {f"FORGE_{secret}": "1"}
    ended = job(
        FORGE_TERMINATION_LOG=str(log),
        FORGE_PUSHGATEWAY_URL="ftp://me:hunter2!@gw",
        FORGE_PROFILE=secret,
        HF_TOKEN=secret,
        **named_by_mistake,
    )
    assert ended.code == 78
    for text in (log.read_text(), ended.err):
        assert "FORGE_PUSHGATEWAY_URL" in text
        assert "FORGE_***: is not a setting" in text
        assert "hunter2" not in text
        assert "correct-horse" not in text


@pytest.mark.parametrize("letter", ["x", "漢"])
def test_the_message_is_cut_to_what_the_kubelet_reads(log: Path, letter: str) -> None:
    names = {f"FORGE_{letter * 20}_{n}": "1" for n in range(100)}
    ended = job(FORGE_TERMINATION_LOG=str(log), **names)
    assert ended.code == 78
    data = log.read_bytes()
    assert 4096 - 4 <= len(data) <= 4096, "cut at a whole character"
    assert data.decode().endswith("\n")


@pytest.mark.parametrize("length", [10, 4_000, 10_000])
def test_the_progress_stays_whole_however_long_the_reason(
    log: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setenv("FORGE_TERMINATION_LOG", str(log))
    progress = {"phase": "failed", "step": 3, "loss": None}
    _write_termination_message(69, "漢 " * length, progress)
    data = log.read_bytes()
    assert len(data) <= 4096
    line, _, rest = data.decode().rpartition(" | ")
    assert line.startswith("exit 69: 漢 漢")
    assert json.loads(rest) == progress


# -- other commands -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "validate", "doctor", "status", "demo"])
def test_help(command: str) -> None:
    ended = job(command, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"usage: forge-job {command}")


def test_help_names_the_commands() -> None:
    ended = job("--help")
    assert ended.code == 0
    for command in ("run", "validate", "doctor", "status", "demo"):
        assert f"\n    {command} " in ended.out


@pytest.mark.parametrize("arguments", [["trian"], ["status"], ["run", "--fast"]])
def test_a_command_line_that_is_none_shows_the_usage(arguments: list[str]) -> None:
    ended = job(*arguments)
    assert ended.code not in (0, 1)
    assert ended.err.startswith("usage: forge-job")


def test_status_of_a_run_that_is_not_there(tmp_path: Path) -> None:
    ended = job("status", str(tmp_path / "run-1"))
    assert (ended.code, ended.out) == (78, "")
    assert f"{tmp_path}/run-1: there is no run here" in ended.err


def test_status_takes_the_output_as_a_run_does(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "run-1"))
    Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    assert "running" in job("status", f"file://{tmp_path}/run-1").out
    assert "run-1" in job("status", "--all", f"file://{tmp_path}").out


def test_status_of_what_is_no_uri() -> None:
    ended = job("status", "run-1")
    assert ended.code == 78
    assert "run-1: is neither s3://bucket/prefix nor an absolute path" in ended.err


@pytest.mark.parametrize(
    "command",
    [
        ["status", "s3://KEY:hunter2!/x@bucket/out/run-1"],
        ["mirror", str(ROOT), "s3://KEY:hunter2!/x@bucket/model"],
        [
            *["evaluate", "--endpoint", "http://127.0.0.1:9", "--model", "m", "--dataset"],
            "s3://KEY:hunter2!/x@b",
        ],
    ],
)
def test_credentials_in_an_argument_are_refused_and_not_told(command: list[str]) -> None:
    ended = job(*command)
    assert ended.code == 78, ended.err
    assert "credentials belong in the AWS variables" in ended.err
    assert "hunter2" not in ended.err + ended.out


def test_mirror_names_its_argument_and_not_a_mirror_as_the_way_out(tmp_path: Path) -> None:
    ended = job("mirror", "nobody/none", str(tmp_path), HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert ended.code == 69
    assert "mirror <model>: nobody/none can't be fetched" in ended.err
    assert "run it where the hub can be reached" in ended.err
    assert "FORGE_MODEL" not in ended.err
    assert "mirror <model>: /none does not exist" in job("mirror", "/none", str(tmp_path)).err


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, "none can be promoted"),
        ({"gate_min_exact": 0.5}, "1 of 2 can't be promoted"),
    ],
)
def test_plan_says_how_many_can_not_be_promoted(own: dict[str, float], told: str) -> None:
    runs = json.dumps([{"lora_r": 8}, {"lora_r": 16, **own}])
    given = {"DATASET_URI": "s3://b/d/", "OUTPUT_URI": "s3://b/o", "RUN_ID": "r"}
    ended = job("plan", runs, "--promote", "best", **{f"FORGE_{k}": v for k, v in given.items()})
    assert ended.code == 0, ended.err
    assert told in ended.err


def test_status_of_a_run(bucket: str) -> None:
    uri = f"{bucket}/out/run-1"
    Ledger.claim(open_storage(uri), "run-1", version="1", conditional_writes=True)
    ended = job("status", uri)
    assert ended.code == 0, ended.err
    assert "status      running (starting)" in ended.out


def test_status_goes_into_a_file(bucket: str, tmp_path: Path) -> None:
    """As Argo reads it."""
    uri = f"{bucket}/out/run-1"
    Ledger.claim(open_storage(uri), "run-1", version="1", conditional_writes=True)
    ended = job("status", uri, "--json", "--output", str(tmp_path / "verdict.json"))
    assert (ended.code, ended.out) == (0, "")
    assert json.loads((tmp_path / "verdict.json").read_text())["status"] == "running"


def test_status_of_a_file_that_can_not_be_written(bucket: str) -> None:
    uri = f"{bucket}/out/run-1"
    Ledger.claim(open_storage(uri), "run-1", version="1", conditional_writes=True)
    ended = job("status", uri, "--output", "/dev/null/verdict")
    assert ended.code == 78
    assert "--output /dev/null/verdict" in ended.err


# -- a run that ends early ------------------------------------------------------------------------


def test_a_record_that_is_none_ends_the_run_before_anything_is_fetched(
    tmp_path: Path, log: Path
) -> None:
    run = tmp_path / "runs" / "run-1"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{")
    ended = job(
        FORGE_TERMINATION_LOG=str(log),
        FORGE_RUN_ID="run-1",
        FORGE_DATASET_URI=str(tmp_path / "data.jsonl"),
        FORGE_OUTPUT_URI=str(tmp_path / "runs"),
        FORGE_METRICS_PORT="0",
        FORGE_METRICS_LINGER_SECONDS="0",
        FORGE_WORK_DIR=str(tmp_path / "work"),
    )
    assert ended.code == 70
    assert log.read_text().startswith(f"exit 70: unexpected error: {run}/run.json: is not a record")
    assert "Traceback" not in ended.err
    assert (run / "run.json").read_text() == "{"
