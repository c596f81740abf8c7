"""SIGTERM in every phase ends with 75, whatever the process is doing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.ledger import read_record
from job.storage import open_storage
from tests.e2e.jobs import started
from tests.storage.wire import Call, interposed


@pytest.mark.parametrize(
    "phase",
    [
        "at once",
        "starting",
        "data",
        "model",
        pytest.param("training", marks=pytest.mark.slow),
        pytest.param("evaluation", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_sigterm_ends_with_75(
    s3_server: S3Server, job_env: dict[str, str], tmp_path: Path, phase: str
) -> None:
    log, sent = Path(job_env["FORGE_TERMINATION_LOG"]), threading.Event()
    log.touch()

    def held(call: Call) -> None:
        """The claim, which ends a phase of some requests that nobody may see else."""
        if phase == "starting" and call.method == "PUT" and "/run.json" in call.path:
            sent.wait(60)

    steps = {"FORGE_MAX_STEPS": "4" if phase == "evaluation" else "400"}
    env = job_env | steps | {"FORGE_SAVE_STEPS": "1000", "FORGE_EVAL_MAX_ROWS": "14"}
    with interposed(s3_server, held) as url:
        env["AWS_ENDPOINT_URL_S3"] = url
        with started(env, tmp_path / "log") as job:
            if phase == "at once":
                job.handles_signals()
            else:
                job.wait_until(lambda progress: progress.get("phase") == phase)
            job.signal(signal.SIGTERM)
            sent.set()
            ended = job.ended()
    assert ended.code == 75, ended.log
    assert log.read_text().startswith("exit 75: preempted: received SIGTERM")
    found = read_record(open_storage(f"{env['FORGE_OUTPUT_URI']}/run"))
    if phase in ("data", "model", "training", "evaluation"):
        assert found is not None
        assert found[0].status == "preempted"
        assert found[0].adapter is None
    if phase == "evaluation":
        assert found is not None
        assert found[0].checkpoints[-1].step == 4  # training is not repeated


IN_AN_IMPORT = """
import dataclasses, signal

make = dataclasses.Field.__set_name__

def interrupted(self, owner, name):
    if owner.__name__ == CLASS:
        dataclasses.Field.__set_name__ = make
        signal.raise_signal(signal.SIGTERM)
    make(self, owner, name)

dataclasses.Field.__set_name__ = interrupted
"""
"""While a class is made, of which Python 3.11 tells by an error of its own."""


@pytest.mark.parametrize(
    ("command", "code", "class_"), [("run", 75, "LlamaConfig"), ("validate", 143, "Row")]
)
def test_sigterm_in_the_middle_of_an_import(
    job_env: dict[str, str], tmp_path: Path, command: str, code: int, class_: str
) -> None:
    script = f"CLASS = {class_!r}\n{IN_AN_IMPORT}"
    (tmp_path / "sitecustomize.py").write_text(script)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with started(job_env | {"PYTHONPATH": path}, tmp_path / "log", command) as job:
        ended = job.ended()
    assert ended.code == code, ended.log
    if command == "run":
        found = read_record(open_storage(f"{job_env['FORGE_OUTPUT_URI']}/run"))
        assert found is not None
        assert found[0].status == "preempted"
