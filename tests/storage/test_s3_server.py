"""The S3 server as a process: found, and gone when it should be."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_server_ends_with_the_process_that_started_it() -> None:
    script = (
        "import os, signal\n"
        "from job.demo.s3_server import S3Server\n"
        "server = S3Server().__enter__()\n"
        "print(server.endpoint_url, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The server holds its own end of no pipe but standard error: it ends, and so does this read.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    port = int(done.stdout.strip().rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


def test_server_on_the_command_line(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "job.demo.s3_server", "--port-file", str(port_file)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    with server.stdout:
        url = server.stdout.readline().strip()
    second = subprocess.run([*command, "--port", url.rpartition(":")[2]], capture_output=True)
    server.send_signal(signal.SIGTERM)

    assert server.wait() == 0
    assert url == f"http://127.0.0.1:{port_file.read_text()}"
    assert second.returncode == 2
    assert b"in use" in second.stderr
