"""The S3 server as a process: found, and gone when it should be."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from job.demo.s3_server import OneSwapAtATime
from job.storage import Conflict, open_storage


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


def test_one_conditional_write_is_served_at_a_time_and_none_waits_for_a_body() -> None:
    """moto looks at the condition and puts the object then: of two at once both could win."""
    at_work, most, bodies = 0, 0, []

    def app(environ: dict[str, Any], _start: object) -> list[bytes]:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.01)
        bodies.append(environ["wsgi.input"].read())
        at_work -= 1
        return []

    served = OneSwapAtATime(app)
    slow_reads, slow_writes = os.pipe()

    def put(source: Any, length: int) -> None:
        environ = {"REQUEST_METHOD": "PUT", "HTTP_IF_MATCH": "x", "CONTENT_LENGTH": str(length)}
        served(environ | {"wsgi.input": source}, None)

    with ThreadPoolExecutor(9) as pool, os.fdopen(slow_reads, "rb") as slow:
        late = pool.submit(put, slow, 4)  # a client that was frozen in the middle of its body
        for other in [pool.submit(put, io.BytesIO(b"fast"), 4) for _ in range(8)]:
            other.result(timeout=30)
        assert not late.done()
        os.write(slow_writes, b"slow")
        late.result(timeout=30)
        os.close(slow_writes)
    assert most == 1
    assert bodies == [b"fast"] * 8 + [b"slow"]


def test_of_many_swaps_at_once_one_wins(bucket: str) -> None:
    etag = open_storage(bucket).write("swapped", b"before all of them")
    together = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(_swap, bucket, together, etag, str(i)) for i in range(8)]
    assert len([tried for tried in tries if tried.result()]) == 1


def _swap(bucket: str, together: threading.Barrier, etag: str, content: str) -> bool:
    storage = open_storage(bucket)
    together.wait()
    try:
        storage.write("swapped", content.encode(), if_match=etag)
    except Conflict:
        return False
    return True
