"""The job as a process of its own, as a cluster would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from job.ranks.node import held_port
from tests.zygote import Forked, Zygote

DEADLINE_SECONDS = 240
"""No test may hang; far above what anything here takes."""

COMMAND = (sys.executable, "-m", "job")

fork_server: Zygote | None = None
"""Set by the fixture `forked_jobs`: runs start from it, without the seconds that imports take. That
such a run is a plain one is shown in tests/chaos; what depends on imports is tested without it."""


@dataclass(frozen=True)
class Ended:
    code: int
    log: str

    def events(self) -> list[dict[str, Any]]:
        """The JSON log lines."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]


class Process(Protocol):
    """What is needed of a `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...


class JobProcess:
    """A running `python -m job`."""

    def __init__(
        self,
        env: Mapping[str, str],
        log: Path,
        *arguments: str,
        command: Sequence[str] = COMMAND,
        netns: Path | None = None,
    ) -> None:
        """`netns` is a network namespace, for one that comes from the fork server."""
        self._held = held_port()
        self.port = int(self._held.getsockname()[1])
        self._log = log
        self._file = log.open("w")
        env = {**os.environ, "FORGE_METRICS_PORT": str(self.port), **env}
        self._process = self._start([*command, *arguments], env, netns)

    def _start(self, command: Sequence[str], env: Mapping[str, str], netns: Path | None) -> Process:
        if fork_server is not None and tuple(command) == COMMAND:
            return Forked(fork_server, env, self._log, netns)
        assert netns is None
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=self._file)

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def progress(self) -> dict[str, Any]:
        """What `/progress` says; nothing while the server isn't up."""
        try:
            return dict(json.loads(self.get("/progress")))
        except OSError:
            return {}

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the job ended too early:\n{self._log.read_text()}")
            progress = self.progress()
            if condition(progress):
                return progress
            time.sleep(0.02)
        raise AssertionError(f"the job hangs:\n{self._log.read_text()}")

    def handles_signals(self) -> None:
        """Wait until the process has its own handler of SIGTERM (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status")
        bit = 1 << (signal.SIGTERM - 1)
        while self._process.poll() is None:
            caught = next(x for x in status.read_text().splitlines() if x.startswith("SigCgt"))
            if int(caught.split()[1], 16) & bit:
                return

    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> Ended:
        """Wait for its end."""
        code = self._process.wait(DEADLINE_SECONDS)
        self._close()
        return Ended(code, self._log.read_text())

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        self._file.close()
        self._held.close()


@contextmanager
def started(env: Mapping[str, str], log: Path, *arguments: str) -> Iterator[JobProcess]:
    job = JobProcess(env, log, *arguments)
    try:
        yield job
    finally:
        job.kill()


def preempted(env: Mapping[str, str], log: Path, *, after_step: int) -> None:
    """An attempt that gets SIGTERM once it has made so many steps, and ends with 75."""
    with started(env, log) as job:
        job.wait_until(lambda progress: progress.get("step", 0) >= after_step)
        job.signal(signal.SIGTERM)
        ended = job.ended()
    assert ended.code == 75, ended.log


def run(env: Mapping[str, str], log: Path, *arguments: str) -> Ended:
    """Start the job and wait for its end."""
    with started(env, log, *arguments) as job:
        return job.ended()
