"""From SIGTERM to a durable state and to the end of the process, with the whole job."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from job.ledger import read_record
from job.storage import open_storage

PHASES = ("starting", "data", "model", "evaluation", "publishing")
_POLL_SECONDS = 0.01
_DURABLE = re.compile(r"checkpoint of step (\d+) is durable \(([\d.]+) MB in ([\d.]+) s\)")


class Running:
    """`python -m job` as a process, and what its port says."""

    def __init__(self, env: dict[str, str], log: Path, port: int) -> None:
        self._log = log
        self._port = port
        self._file = log.open("w")
        env = os.environ | env | {"FORGE_METRICS_PORT": str(port)}
        command = [sys.executable, "-m", "job"]
        self.process = subprocess.Popen(command, env=env, stderr=self._file, stdout=self._file)

    def progress(self) -> dict[str, Any]:
        try:
            url = f"http://127.0.0.1:{self._port}/progress"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return dict(json.loads(answer.read()))
        except OSError:
            return {}

    def wait_for(self, phase: str, step: int = 0) -> bool:
        while self.process.poll() is None:
            said = self.progress()
            if said.get("phase") == phase and said.get("step", 0) >= step:
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def ended(self, timeout: float = 120) -> str:
        """Its log, once it has ended."""
        self.process.wait(timeout)
        self._file.close()
        return self._log.read_text()


def in_training(env: dict[str, str], log: Path, port: int, seed: int) -> dict[str, float]:
    """Stopped at a random moment of training. `upload` is the part that another uploader could
    have done faster: the log's time from the written checkpoint to the durable one."""
    run = Running(env, log, port)
    if not run.wait_for("training", step=2):
        raise RuntimeError(run.ended()[-3000:])
    time.sleep(random.Random(seed).uniform(0, 2))  # noqa: S311
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    storage = open_storage(f"{env['FORGE_OUTPUT_URI']}/{env['FORGE_RUN_ID']}")
    durable = None
    while run.process.poll() is None:
        found = read_record(storage)
        if durable is None and found and found[0].checkpoints:
            durable = time.monotonic() - began
        time.sleep(_POLL_SECONDS)
    ended = time.monotonic() - began
    text = run.ended()
    told = _DURABLE.findall(text)
    if durable is None or run.process.returncode != 75 or not told:
        raise RuntimeError(text[-3000:])
    _, size, seconds = told[-1]
    return {
        "durable": durable,
        "exit_after_durable": ended - durable,
        "upload": float(seconds),
        "megabytes": float(size),
        "code": run.process.returncode,
    }


def in_phase(env: dict[str, str], log: Path, port: int, phase: str) -> dict[str, float] | None:
    """None where the phase was over before it could be seen."""
    run = Running(env, log, port)
    if not run.wait_for(phase):
        run.ended()
        return None
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    run.process.wait(120)
    seconds = time.monotonic() - began
    run.ended()
    return {"exit": seconds, "code": run.process.returncode}
