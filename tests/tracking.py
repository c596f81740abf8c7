"""A real MLflow tracking server, and what W&B's offline files say."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.jobs import DEADLINE_SECONDS
from tests.ports import own_port

_BLOCK = 32768
"""Bytes, in LevelDB's log format, which W&B's files have after seven bytes of their own."""
_HEADER = struct.Struct("<IHB")
"""Of a part of a record: checksum, length, and whether it is the whole, the first, the last."""
_LAST = (1, 4)


@dataclass(frozen=True)
class MlflowServer:
    """A process with a database of its own."""

    url: str
    process: subprocess.Popen[bytes]

    def freeze(self) -> None:
        """From now on it takes connections and never answers."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    with own_port() as port:
        yield from _mlflow_server(folder, port)


def _mlflow_server(folder: Path, port: int) -> Iterator[MlflowServer]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "mlflow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--artifacts-destination", str(folder)],
            env=os.environ | quiet,
            cwd=folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    server = MlflowServer(f"http://127.0.0.1:{port}", process)
    try:
        _wait_for(server, log)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(server: MlflowServer, log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=5):  # noqa: S310 - ours
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the tracking server does not start:\n{log.read_text()}")


def wandb_records(path: Path) -> Iterator[Any]:
    """The messages of a `.wandb` file, by W&B's own classes."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data.startswith(b":W&B")
    position, record = 7, b""
    while position + _HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER.size:
            position += left
            continue
        _, length, kind = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        record += data[position : position + length]
        position += length
        if kind in _LAST:
            message = wandb_internal_pb2.Record()
            message.ParseFromString(record)
            yield message
            record = b""
