"""`doctor` as a whole: all checks are made, the first failure decides, no secret is shown."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from job.cgroups import Cgroups
from job.preflight.checks import exit_code, lines
from job.preflight.doctor import Doctor, doctor
from job.preflight.doctor.wanted import Wanted
from job.storage import open_storage
from tests.environment import python
from tests.storage.wire import Answer, Call, Interpose, s3_error

NAMES = [
    *("settings", "gpu", "driver", "compiler", "folders", "disk", "memory"),
    *("clock", "s3", "model", "data set", "grace"),
]


@pytest.fixture
def env(bucket: str, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """Of a run that would work."""
    open_storage(bucket).write("data/rows.jsonl", b"{}\n")
    return {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"{bucket}/data/",
        "FORGE_OUTPUT_URI": f"{bucket}/out",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": str(tiny_model),
        "FORGE_WORK_DIR": str(tmp_path / "work"),
        "HOME": str(tmp_path),
    }


def results(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert list(checks) == NAMES
    return checks


def test_a_node_that_will_do(env: dict[str, str], bucket: str, tmp_path: Path) -> None:
    done = python(env, "-X", "importtime", "-m", "job", "doctor", "--json", "--no-gpu")
    found = results(done)
    assert done.returncode == 0, done.stdout
    assert {name: found[name]["result"] for name in NAMES} == dict.fromkeys(NAMES, "ok") | {
        "gpu": "not checked",
        "driver": "not checked",
        "compiler": found["compiler"]["result"],  # ok, or a warning on a machine without
    }
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "job.preflight.doctor" in imported
    assert not imported & {"torch", "trl", "peft", "datasets", "accelerate", "bitsandbytes"}
    assert [info.key for info in open_storage(bucket).list()] == ["data/rows.jsonl"]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_bad_settings_keep_nothing_of_the_node_from_being_checked(env: dict[str, str]) -> None:
    bad = {"FORGE_SEED": "-1", "FORGE_SEDE": "1", "FORGE_WORK_DIR": "/proc/work"}
    done = python(env | bad, "-m", "job", "doctor", "--json", "--no-gpu")
    assert done.returncode == 78
    found = results(done)
    assert "FORGE_SEED: " in found["settings"]["detail"]
    assert "did you mean FORGE_SEED?" in found["settings"]["detail"]
    assert found["folders"]["result"] == "failed"
    assert "FORGE_WORK_DIR: /proc/work can't be written" in found["folders"]["detail"]
    assert found["memory"]["result"] == "ok"
    for name in ("disk", "clock", "s3", "model", "data set", "grace"):
        assert found[name]["result"] == "not checked"


def test_every_fault_is_told_and_the_first_decides(env: dict[str, str], bucket: str) -> None:
    bad = {
        "FORGE_DATASET_URI": f"{bucket}/nothing/",
        "FORGE_OUTPUT_URI": "s3://no-such-bucket/out",
        "FORGE_GRACE_SECONDS": "5",
    }
    done = python(env | bad, "-m", "job", "doctor", "--no-gpu")
    assert done.returncode == 78
    assert re.search(r"^s3 +failed +s3://no-such-bucket.*does not exist", done.stdout, re.MULTILINE)
    assert re.search(r"^data set +failed +data rejected: ", done.stdout, re.MULTILINE)
    assert re.search(r"^grace +warning +5 s are set", done.stdout, re.MULTILINE)
    only_data = {"FORGE_DATASET_URI": f"{bucket}/nothing/"}
    assert python(env | only_data, "-m", "job", "doctor", "--no-gpu").returncode == 65


def test_a_store_that_is_out_of_reach(env: dict[str, str]) -> None:
    gone = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    done = python(env | gone, "-m", "job", "doctor", "--json", "--no-gpu")
    assert done.returncode == 69
    found = results(done)
    assert found["clock"]["result"] == "not checked"
    assert (found["s3"]["exit_code"], found["data set"]["exit_code"]) == (69, 69)


def test_rights_that_are_too_few_to_promote(
    env: dict[str, str], bucket: str, interpose: Interpose
) -> None:
    def none_above_the_run(call: Call) -> Answer | None:
        return s3_error(403, "AccessDenied") if "/out/promoted.json" in call.path else None

    interpose(none_above_the_run)
    assert python(env, "-m", "job", "doctor", "--no-gpu").returncode == 0
    gate = {"FORGE_GATE_MIN_EXACT": "0.5"}
    done = python(env | gate, "-m", "job", "doctor", "--json", "--no-gpu")
    assert done.returncode == 77
    assert "promoted.json" in results(done)["s3"]["detail"]


def test_no_secret_is_shown(env: dict[str, str]) -> None:
    secret = "correct-horse-battery"
    given = {"HF_TOKEN": secret, "CC": f"/opt/{secret}/cc", "HF_HOME": f"/proc/{secret}"}
    for arguments in (["--no-gpu"], ["--no-gpu", "--json"]):
        done = python(env | given, "-m", "job", "doctor", *arguments)
        assert "/opt/***/cc did not run" in done.stdout
        assert "HF_HOME: /proc/*** can't be written" in done.stdout
        assert secret not in done.stdout + done.stderr


def test_a_check_that_breaks_stops_no_other(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def broken(*_: object) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("job.preflight.doctor.volumes.folders", broken)
    checks = doctor(gpu=False)
    assert [check.name for check in checks] == NAMES
    [found] = [check for check in checks if check.result == "failed"]
    assert (found.name, found.exit_code) == ("folders", 70)
    assert found.detail == "unexpected error: ZeroDivisionError: a bug"
    assert exit_code(checks) == 70


def test_without_a_card_a_run_that_needs_one_is_warned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = {check.name: check for check in Doctor(Wanted(None), tmp_path / "none").checks()}
    for name in ("gpu", "driver", "compiler"):
        assert (found[name].result, found[name].exit_code) == ("failed", 78), name
    monkeypatch.setenv("FORGE_ENGINE", "reference")
    found = {check.name: check for check in Doctor(Wanted(None), tmp_path / "none").checks()}
    assert [found[name].result for name in ("gpu", "driver")] == ["not checked", "not checked"]
    assert found["compiler"].result == "warning"


def test_a_pod_without_a_gpu_may_be_smaller_than_the_one_that_trains(tmp_path: Path) -> None:
    """`helm test` runs in one."""
    (tmp_path / "memory.max").write_text("1000000")
    small = Cgroups(tmp_path, tmp_path / "none")
    results = {}
    for gpu in (True, False):
        found = Doctor(Wanted(None, gpu), tmp_path / "none", small).checks()
        results[gpu] = next(check for check in found if check.name == "memory")
    assert (results[True].result, results[True].exit_code) == ("failed", 78)
    assert (results[False].result, results[False].exit_code) == ("warning", 0)
    assert "the pod that trains needs it" in results[False].detail


@pytest.mark.parametrize("name", ["PET_NPROC_PER_NODE", "LOCAL_WORLD_SIZE"])
def test_the_processes_of_the_node_share_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FORGE_ENGINE", "reference")
    (tmp_path / "memory.max").write_text("2000000000")
    for count, result in (("1", "ok"), ("2", "failed"), ("two", "failed")):
        monkeypatch.setenv(name, count)
        found = Doctor(Wanted(None), tmp_path / "none", Cgroups(tmp_path, tmp_path / "none"))
        memory = next(check for check in found.checks() if check.name == "memory")
        assert memory.result == result, memory
    assert f"{name}: is 'two', not a number" in memory.detail


def test_the_table_is_aligned() -> None:
    table = lines(doctor(gpu=False))
    assert [line[:10].strip() for line in table] == NAMES
    assert table[0].startswith("settings  failed       3 problems:\n")
