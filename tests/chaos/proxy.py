"""A proxy between the job and S3 that misbehaves by rule, and kills the job between two requests.

Bodies are streamed. A rule looks at each request, in the order in which they arrive, and returns
the fault that this one meets, or None. The log of requests stays, for tests to look at.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

_BLOCK = 1 << 14
_HANG_SECONDS = 300.0


@dataclass(frozen=True)
class Request:
    """What a rule, and the log, know of a request."""

    number: int
    """From 1, in order of arrival."""
    method: str
    path: str
    """With bucket and query."""
    size: int
    """Of its body, in bytes."""

    def __str__(self) -> str:
        return f"{self.number} {self.method} {self.path}"


@dataclass(frozen=True)
class Fault:
    """What happens to one request; what is not given happens as it should."""

    before: Callable[[], None] | None = None
    """Called before S3 hears of the request."""
    after: Callable[[], None] | None = None
    """Called when S3 has answered, before the job hears of that."""
    status: int | None = None
    """The proxy answers so itself, as S3 would with `code`."""
    code: str = ""
    cut_request: int | None = None
    """S3 gets so many bytes of the body, then the connections break."""
    cut_answer: int | None = None
    """The job gets so many bytes of the body, then the connection breaks."""
    lose_answer: bool = False
    """S3 does what it is asked, and nobody hears of it."""
    flip_request: bool = False
    """One bit of the body reaches S3 changed."""
    flip_answer: bool = False
    """One bit of the answer's body reaches the job changed."""
    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    """Of the request's body."""
    drop: bool = False
    """The connection is closed, and S3 never hears of the request."""
    hang: bool = False
    """Nothing is ever answered, and the connection stays open."""


Rule = Callable[[Request], Fault | None]


def nothing(_request: Request) -> Fault | None:
    """The rule of a network as it should be."""
    return None


class Proxy:
    """Use `proxied`. `rule` may be replaced at any time."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.rule: Rule = nothing
        self.requests: list[Request] = []
        self.statuses: dict[int, int] = {}
        """What S3 has answered, by number; nothing for those it never heard of."""
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def take(self, method: str, path: str, size: int) -> tuple[Request, Fault]:
        """Number and log a request, and ask the rule."""
        with self._lock:
            request = Request(len(self.requests) + 1, method, path, size)
            self.requests.append(request)
            return request, self.rule(request) or Fault()

    def writes(self, after: int) -> list[str]:
        """The paths that S3 let somebody change, from request number `after` on."""
        return [
            request.path
            for request in self.requests[after:]
            if request.method in ("PUT", "POST", "DELETE")
            and self.statuses.get(request.number, 500) < 300
        ]


class _Broken(Exception):
    """The connection ends here, on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]

    def handle_one(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        request, fault = self.proxy.take(self.command, self.path, size)
        try:
            self._serve(request, fault, size)
        except (_Broken, OSError, http.client.HTTPException):
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_one  # noqa: N815

    def _serve(self, request: Request, fault: Fault, size: int) -> None:
        if fault.before:
            fault.before()
        if fault.drop:
            raise _Broken
        if fault.hang:
            self.proxy.closing.wait(_HANG_SECONDS)
            raise _Broken
        time.sleep(fault.delay_seconds)
        if fault.status is not None:
            self._refuse(fault, size)
            return
        upstream = http.client.HTTPConnection(self.proxy.upstream)
        try:
            self._forward(upstream, fault, size)
            answer = upstream.getresponse()
            self.proxy.statuses[request.number] = answer.status
            body = answer.read()
            if fault.after:
                fault.after()
            if fault.lose_answer:
                raise _Broken
            self._answer(answer, body, fault)
        finally:
            upstream.close()

    def _refuse(self, fault: Fault, size: int) -> None:
        self._drain(size)
        body = f"<Error><Code>{fault.code}</Code><Message>said the proxy</Message></Error>".encode()
        self.send_response(fault.status or 500)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self, size: int) -> None:
        while size > 0 and (block := self.rfile.read(min(size, _BLOCK))):
            size -= len(block)

    def _forward(self, upstream: http.client.HTTPConnection, fault: Fault, size: int) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                upstream.putheader(name, value)
        upstream.endheaders()
        sent = 0
        while sent < size:
            block = self.rfile.read(min(_BLOCK, size - sent))
            if not block:
                raise _Broken
            if fault.flip_request and sent == 0:
                block = _flipped(block)
            if fault.cut_request is not None and sent + len(block) > fault.cut_request:
                upstream.send(block[: max(0, fault.cut_request - sent)])
                raise _Broken
            upstream.send(block)
            sent += len(block)
            if fault.bytes_per_second:
                time.sleep(len(block) / fault.bytes_per_second)

    def _answer(self, answer: http.client.HTTPResponse, body: bytes, fault: Fault) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.flip_answer and body:
            body = _flipped(body)
        self.wfile.write(body[: fault.cut_answer])
        if fault.cut_answer is not None:
            raise _Broken

    def log_message(self, *_: Any) -> None:
        """Quiet: `Proxy.requests` is the log."""


def _flipped(block: bytes) -> bytes:
    middle = len(block) // 2
    return block[:middle] + bytes([block[middle] ^ 1]) + block[middle + 1 :]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """A job that was killed breaks its connections."""


@contextmanager
def proxied(endpoint_url: str) -> Iterator[tuple[Proxy, str]]:
    """The proxy, and the endpoint that the job is to be given."""
    proxy = Proxy(urlsplit(endpoint_url).netloc)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_port}"
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
