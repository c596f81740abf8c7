"""`/metrics`, `/healthz` and `/progress` over HTTP, next to the run and never in its way.

Nothing that a client sends is parsed but the method, the path and the headers that negotiate the
exposition format.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import orjson
from prometheus_client import make_wsgi_app

from job.errors import Problem, SettingsError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from prometheus_client import CollectorRegistry

_log = logging.getLogger(__name__)

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_CLIENT_SECONDS: Final = 10
"""A client that sends nothing for so long is dropped."""


class MetricsServer:
    """Serves while inside `with`, on all addresses, IPv6 and IPv4. Its threads are daemons.

    `port` 0 takes any free one; `.port` says which. `registry` holds what `/metrics` shows,
    `progress` returns JSON data (NaN becomes null), `healthy` whether the run is alive and a line
    why. Raises `SettingsError` when the port can't be had.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        port: int,
        progress: Callable[[], dict[str, Any]],
        healthy: Callable[[], tuple[bool, str]],
    ) -> None:
        self._exposition = make_wsgi_app(registry)
        self._progress = progress
        self._healthy = healthy
        self._server = _bind(port)
        self._server.set_app(self._answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics-server", daemon=True
        )

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        _log.info("metrics, health and progress are served on port %d", self.port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return _send(respond, "405 Method Not Allowed", b"only GET and HEAD\n", head=False)
        head = method == "HEAD"
        try:
            return self._route(environ, respond, head)
        except Exception:  # noqa: BLE001 - a fault in what is shown must not become one of the run
            _log.warning("%s could not be answered", environ["PATH_INFO"], exc_info=True)
            return _send(respond, "500 Internal Server Error", b"see the log\n", head=head)

    def _route(
        self, environ: WSGIEnvironment, respond: StartResponse, head: bool
    ) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            body = self._exposition(
                {**environ, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}, respond
            )
            return [] if head else body
        if path == "/healthz":
            healthy, reason = self._healthy()
            status = "200 OK" if healthy else "503 Service Unavailable"
            return _send(respond, status, f"{reason}\n".encode(), head=head)
        if path == "/progress":
            body = orjson.dumps(self._progress(), default=str)
            return _send(respond, "200 OK", body, head=head, kind=_JSON)
        return _send(respond, "404 Not Found", b"/metrics, /healthz or /progress\n", head=head)


def _send(
    respond: StartResponse, status: str, body: bytes, *, head: bool, kind: str = _TEXT
) -> list[bytes]:
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
    respond(status, headers)
    return [] if head else [body]


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """A scrape every few seconds is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer's own asks the DNS for our name, which can take seconds in a pod.
        TCPServer.server_bind(self)
        self.server_name = "forge-job"
        self.server_port = self.socket.getsockname()[1]
        self.setup_environ()

    def handle_error(self, _request: object, client_address: object) -> None:
        """A client that went away, as a rule."""
        _log.debug("request of %s failed", client_address, exc_info=True)


class _DualStackServer(_Server):
    address_family = socket.AF_INET6


def _bind(port: int) -> WSGIServer:
    try:
        return _DualStackServer(("::", port), _Handler)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise _unusable(port, error) from error
    try:  # a node without IPv6
        return _Server(("0.0.0.0", port), _Handler)  # noqa: S104 - Prometheus comes from outside
    except OSError as error:
        raise _unusable(port, error) from error


def _unusable(port: int, error: OSError) -> SettingsError:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "is in use by another process"
    return SettingsError(
        Problem(
            "FORGE_METRICS_PORT",
            f"port {port} can't be had: {reason}",
            "set FORGE_METRICS_PORT to another port, or to 0 for any free one",
        )
    )
