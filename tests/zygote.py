"""A fork server: it has imported all that the job imports, so that an attempt starts at once.

    python -m tests.zygote

reads one JSON object a line from standard input (`env`, `log`, …) and forks a child for each, which
runs `python -m job` as far as the two can be told apart; says `{"pid": …}` for each, and `{"pid":
…, "code": …}` for each that has ended. It runs no torch operation and has no other thread: what
a child inherits is modules. `Zygote` is the other side of it.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

_POLL_SECONDS = 0.02
_START_SECONDS = 120.0


class Forked:
    """An attempt that the fork server has started; as far as it goes a `subprocess.Popen`."""

    def __init__(
        self, zygote: Zygote, env: Mapping[str, str], log: Path, netns: Path | None = None
    ) -> None:
        self._zygote = zygote
        self.pid = zygote.start(env, log, netns=netns)

    def poll(self) -> int | None:
        return self._zygote.code(self.pid, 0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._zygote.code(self.pid, timeout)
        if code is None:
            raise subprocess.TimeoutExpired("job", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """Starts attempts. Use as a context manager; what still runs at its end is killed.

    `env` is added to the server's own environment: for what is read when something is imported.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(env or {})

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | self._env,
        )
        self._changed = threading.Condition()
        self._started: list[int] = []
        self._codes: dict[int, int] = {}
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pid in set(self._started) - self._codes.keys():
            with suppress(ProcessLookupError):  # it has ended, and was not spoken of yet
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()

    def start(
        self,
        env: Mapping[str, str],
        log: Path,
        *,
        clock_jumps: bool = False,
        netns: Path | None = None,
    ) -> int:
        """The process id of a new attempt; `env` is all of its environment. With `clock_jumps` its
        wall clock jumps by a day, to and fro; `netns` is the network namespace that it is in."""
        assert self._process.stdin is not None
        with self._changed:
            count = len(self._started)
            order = {"env": dict(env), "log": str(log), "clock_jumps": clock_jumps}
            order["netns"] = str(netns) if netns else None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            if not self._changed.wait_for(lambda: len(self._started) > count, _START_SECONDS):
                raise AssertionError("the fork server does not answer")
            return self._started[-1]

    def code(self, pid: int, timeout_seconds: float | None) -> int | None:
        """The exit code, negative for a signal; None if it still runs after that time, which has
        no end if it is None."""
        with self._changed:
            self._changed.wait_for(lambda: pid in self._codes, timeout_seconds)
            return self._codes.get(pid)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            with self._changed:
                if "code" in said:
                    self._codes[said["pid"]] = said["code"]
                else:
                    # The system gives a number again: what the one before it ended with is not
                    # what this one does.
                    self._codes.pop(said["pid"], None)
                    self._started.append(said["pid"])
                self._changed.notify_all()


def main() -> None:
    """Serve until standard input ends."""
    _import_everything()
    while True:
        readable, _, _ = select.select([0], [], [], _POLL_SECONDS)
        _reap()
        if not readable:
            continue
        line = _line()
        if not line:
            return
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_a_job(order)
        _say({"pid": pid})


def _import_everything() -> None:
    # isort: off
    import bitsandbytes  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    import trl  # noqa: F401
    import job.__main__
    import job.evaluation.generate
    import job.run
    import job.storage.s3
    import job.training  # noqa: F401
    from transformers import LlamaForCausalLM  # noqa: F401
    from trl import SFTConfig, SFTTrainer  # noqa: F401


def _line() -> bytes:
    """Unbuffered: what is not for this child must not be in its memory."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def _reap() -> None:
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _say({"pid": ended[0], "code": os.waitstatus_to_exitcode(ended[1])})
    except ChildProcessError:
        return


def _say(words: dict[str, int]) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())


def _become_a_job(order: dict[str, Any]) -> NoReturn:
    from job.__main__ import cli

    if order["netns"] is not None:
        _enter(order["netns"])
    os.environ.clear()
    os.environ.update(order["env"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log, 2)
    sys.argv = ["job"]
    if order["clock_jumps"]:
        time.time = _jumping(time.time)
    cli()


def _enter(netns: str) -> None:
    """As `ip netns exec` does (Python 3.12 has `os.setns`)."""
    with open(netns) as namespace:  # noqa: PTH123 - a handle, not a content
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"{netns} can't be entered")


def _jumping(real: Callable[[], float]) -> Callable[[], float]:
    """A clock that somebody sets a day ahead and back again, twice a second."""

    def jumping() -> float:
        return real() + (86_400 if int(time.monotonic() * 4) % 2 else -86_400)

    return jumping


if __name__ == "__main__":
    main()
