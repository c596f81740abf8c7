"""A server between the client and S3 that can misbehave."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from job.demo.s3_server import S3Server


@dataclass
class Call:
    """A request on its way to S3. A rule may change its headers."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What a rule answers itself, in place of S3."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    """Only so many bytes of the body are sent before the connection is closed."""


@dataclass(frozen=True)
class Cut:
    """What a rule returns for S3's own answer, broken off."""

    after: int
    """Bytes of the body that get through."""
    held: threading.Event | None = None
    """The connection stays open, and silent, until this is set."""


Rule = Callable[[Call], Answer | Cut | None]
"""Answers itself, or has the answer of S3 cut; with None the request just goes to S3."""


def ignores_conditions(call: Call) -> None:
    """A rule: the server never sees them, as some stores never look at them."""
    for name in [name for name in call.headers if name.lower().startswith("if-")]:
        del call.headers[name]


def s3_error(status: int, code: str, message: str = "said the test") -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rule: Rule
    upstream: str

    def handle_one(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        call = Call(self.command, self.path, dict(self.headers), self.rfile.read(size))
        ruled = type(self).rule(call)
        answer = ruled if isinstance(ruled, Answer) else self._forward(call)
        sent = ruled.after if isinstance(ruled, Cut) else answer.sent
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:sent])
        if isinstance(ruled, Cut) and ruled.held is not None:
            self.wfile.flush()
            ruled.held.wait(60)
        self.close_connection = sent is not None

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_one  # noqa: N815

    def _forward(self, call: Call) -> Answer:
        connection = http.client.HTTPConnection(self.upstream)
        try:
            connection.request(call.method, call.path, call.body, call.headers)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        hop_by_hop = ("connection", "transfer-encoding", "date", "server")
        headers = {k: v for k, v in response.getheaders() if k.lower() not in hop_by_hop}
        return Answer(response.status, body, headers)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *of: Any) -> None:
        """A client that hangs up is no news, least of all in the output of the test after it."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*of)


@contextmanager
def interposed(server: S3Server, rule: Rule) -> Iterator[str]:
    upstream = urlsplit(server.endpoint_url).netloc
    handler = type("Handler", (_Handler,), {"rule": staticmethod(rule), "upstream": upstream})
    between = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{between.server_port}"
    finally:
        between.shutdown()
        between.server_close()


Interpose = Callable[[Rule], None]
