"""What can be wrong, each with its exit code and an error that says where and how to mend it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from job.ledger import Ledger, read_record
from job.storage import open_storage
from tests.e2e.jobs import run
from tests.storage.wire import Answer, Call, Interpose, ignores_conditions, s3_error


@dataclass(frozen=True)
class Case:
    name: str
    code: int
    says: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    data: bytes | None = None
    """Replaces the data set."""


SYSTEM = '{"role":"system","content":"Hi"}'
USER = '{"role":"user","content":"Hello"}'
ANSWER = '{"role":"assistant","content":"Hi there"}'


def row(*messages: str) -> bytes:
    return ('{"messages":[' + ",".join(messages) + "]}\n").encode()


CASES = (
    Case(
        "settings: all problems at once",
        78,
        ("FORGE_LORA_RR: is not a setting (did you mean FORGE_LORA_R?)", "FORGE_MAX_STEPS", "'x'"),
        {"FORGE_LORA_RR": "8", "FORGE_MAX_STEPS": "x"},
    ),
    Case(
        "unknown profile and family",
        78,
        ("FORGE_PROFILE", "'fast_dev', 'balanced' or 'max_quality'", "FORGE_MODEL_FAMILY", "qwen"),
        {"FORGE_PROFILE": "fastest", "FORGE_MODEL_FAMILY": "gpt"},
    ),
    Case(
        "output bucket that isn't there",
        78,
        ("no-such-bucket", "does not exist"),
        {"FORGE_OUTPUT_URI": "s3://no-such-bucket/out"},
    ),
    Case(
        "data set that isn't there",
        78,
        ("FORGE_DATASET_URI", "data/missing.jsonl"),
        {"FORGE_DATASET_URI": "{bucket}/data/missing.jsonl"},
    ),
    Case(
        "no credentials",
        77,
        ("AWS_ACCESS_KEY_ID",),
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ),
    Case(
        "unreachable endpoint",
        69,
        ("http://127.0.0.1:{closed_port}",),
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:{closed_port}", "AWS_MAX_ATTEMPTS": "2"},
    ),
    Case("empty data set", 65, ("holds no rows", "FORGE_DATASET_URI"), data=b"\n\n"),
    Case(
        "broken JSON",
        65,
        ("data/rows.jsonl:2", "JSON"),
        data=row(USER, ANSWER) + b'{"messages": [\n' + row(USER, ANSWER),
    ),
    Case(
        "a row with no assistant turn, and another fault in the same run",
        65,
        ("data/rows.jsonl:1", "data/rows.jsonl:2", "assistant"),
        data=row(SYSTEM, USER) + b"[]\n",
    ),
    Case(
        "no trainable token",
        65,
        ("data",),
        data=row(USER, '{"role":"assistant","content":""}') * 4,
    ),
    Case(
        "a model path without a model",
        78,
        ("FORGE_MODEL", "/nowhere/model does not exist"),
        {"FORGE_MODEL": "/nowhere/model"},
    ),
    Case(
        "a hub that can't be reached",
        69,
        ("FORGE_MODEL", "owner/model"),
        {"FORGE_MODEL": "owner/model"},
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(
    job_env: dict[str, str], bucket: str, tmp_path: Path, case: Case, closed_port: int
) -> None:
    def filled(text: str) -> str:
        return text.replace("{bucket}", bucket).replace("{closed_port}", str(closed_port))

    if case.data is not None:
        open_storage(bucket).write("data/rows.jsonl", case.data)
    log = Path(job_env["FORGE_TERMINATION_LOG"])
    log.touch()
    env = job_env | {name: filled(value) for name, value in case.env.items()}

    ended = run(env, tmp_path / "log")

    message = ended.events()[-1]["message"]
    assert ended.code == case.code, message
    for words in case.says:
        assert filled(words) in message
    assert "Traceback" not in message
    assert log.read_text().startswith(f"exit {case.code}: ")
    assert "demo-secret" not in ended.log


def test_the_record_says_why_a_run_failed(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    open_storage(bucket).write("data/rows.jsonl", b"{")
    assert run(job_env, tmp_path / "log").code == 65
    storage = open_storage(f"{bucket}/out/run")
    found = read_record(storage)
    assert found is not None
    assert found[0].status == "failed"
    assert found[0].attempts[0].exit_code == 65
    assert "data/rows.jsonl:1" in found[0].attempts[0].reason
    report, _ = storage.read("dataset/report.json")
    assert b'"line": 1' in report


def test_a_run_that_goes_nowhere_is_given_up_before_it_costs_anything(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    storage = open_storage(f"{bucket}/out/run")
    for _ in range(2):
        earlier = Ledger.claim(storage, "run", version="1", conditional_writes=True)
        earlier.close("preempted", 75, "received SIGTERM")
    ended = run(job_env | {"FORGE_MAX_ATTEMPTS_WITHOUT_PROGRESS": "2"}, tmp_path / "log")
    assert ended.code == 70, ended.log
    assert "2 attempts in a row: ended at step 0, where they began" in ended.log


def test_a_store_that_ignores_conditions_is_told_of_and_recorded(
    job_env: dict[str, str], bucket: str, interpose: Interpose, tmp_path: Path
) -> None:
    open_storage(bucket).write("data/rows.jsonl", b"{")
    interpose(ignores_conditions)
    ended = run(job_env, tmp_path / "log")
    assert ended.code == 65, ended.log
    assert [e["level"] for e in ended.events() if "ignores conditional writes" in e["message"]] == [
        "warning"
    ]
    found = read_record(open_storage(f"{bucket}/out/run"))
    assert found is not None
    assert not found[0].conditional_writes


def test_a_run_that_may_not_promote_ends_before_it_reads_its_data(
    job_env: dict[str, str], bucket: str, interpose: Interpose, tmp_path: Path
) -> None:
    """A role that may write below one run's prefix alone."""
    asked: list[str] = []

    def only_the_run(call: Call) -> Answer | None:
        asked.append(call.path)
        allowed = call.method != "PUT" or "/out/run/" in call.path
        return None if allowed else s3_error(403, "AccessDenied")

    interpose(only_the_run)
    ended = run(job_env | {"FORGE_GATE_MIN_GAIN": "0"}, tmp_path / "log")
    assert ended.code == 77, ended.log
    assert not any("/data/" in path for path in asked)


def test_a_port_that_is_taken(job_env: dict[str, str], tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = run(job_env | {"FORGE_METRICS_PORT": port}, tmp_path / "log")
    assert ended.code == 78
    assert f"FORGE_METRICS_PORT: port {port} can't be had" in ended.log


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [4, 200], ids=["at the start", "at the first checkpoint"])
def test_a_disk_that_is_full(
    job_env: dict[str, str],
    bucket: str,
    tmp_path: Path,
    volume: Callable[[str], Path],
    kibibytes: int,
) -> None:
    env = job_env | {"FORGE_WORK_DIR": str(volume(f"size={kibibytes}k")), "FORGE_SAVE_STEPS": "2"}
    env |= {"FORGE_MAX_STEPS": "8", "TMPDIR": str(tmp_path)}
    ended = run(env, tmp_path / "log")
    assert ended.code == 70, ended.log
    message = ended.events()[-1]["message"]
    assert "FORGE_WORK_DIR" in message
    assert "Traceback" not in message
