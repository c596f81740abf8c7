"""A store that costs the training's processors next to nothing, as one on another machine would.

    python -m benchmarks.checkpoint.sink http://127.0.0.1:5000

Large objects, and parts of them, are read and forgotten; everything else (the record, listings,
conditions, small files) goes to the real server whose address is given. Prints its own port.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import PIPE, Popen
from typing import Final
from urllib.parse import urlsplit

LARGE: Final = 200_000
"""Bytes. What a run writes besides weights, optimizer and tokenizer is smaller."""
_NOT_FORWARDED: Final = {"host", "connection", "expect", "transfer-encoding"}
_OWN: Final = {"content-length", "connection", "date", "server", "transfer-encoding"}
_STARTED: Final = (
    b"<InitiateMultipartUploadResult><UploadId>sink</UploadId></InitiateMultipartUploadResult>"
)
_COMPLETED: Final = (
    b'<CompleteMultipartUploadResult><ETag>"sink"</ETag></CompleteMultipartUploadResult>'
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    backend = ""
    buffers = threading.local()

    def do_PUT(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if size < LARGE and "partNumber=" not in self.path:
            self._forward(size)
            return
        self._forget(size)
        self._answer(200, [("ETag", '"sink"')], b"")

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if re.search(r"[?&]uploads(=|&|$)", self.path):
            self._forget(size)
            self._answer(200, [], _STARTED)
        elif "uploadId=sink" in self.path:
            self._forget(size)
            self._answer(200, [], _COMPLETED)
        else:
            self._forward(size)

    def do_GET(self) -> None:
        self._forward(0)

    def do_HEAD(self) -> None:
        self._forward(0)

    def do_DELETE(self) -> None:
        self._forward(0)

    def _forget(self, size: int) -> None:
        buffer = getattr(self.buffers, "own", None)
        if buffer is None:
            buffer = self.buffers.own = memoryview(bytearray(1 << 20))
        while size > 0:
            size -= self.rfile.readinto(buffer[: min(size, len(buffer))]) or size

    def _forward(self, size: int) -> None:
        body = self.rfile.read(size) if size else None
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _NOT_FORWARDED}
        backend = HTTPConnection(self.backend)
        backend.request(self.command, self.path, body, headers)
        answer = backend.getresponse()
        content = answer.read()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        backend.close()
        self._answer(answer.status, kept, content, length)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def sink(backend: str) -> Iterator[tuple[str, int]]:
    """Its address and process id, while it runs at the lowest priority."""
    command = [sys.executable, "-m", "benchmarks.checkpoint.sink", backend]
    process = Popen(command, stdout=PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main(backend: str) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    _Handler.backend = urlsplit(backend).netloc
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
