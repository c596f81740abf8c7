"""The server, asked over real HTTP, and the push to a gateway that listens."""

import gzip
import json
import logging
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from job.errors import SettingsError
from job.ledger import Ledger, Progress
from job.metrics import BuildInfo, Health, Metrics, MetricsServer, push
from job.metrics.state import RunState
from job.storage import open_storage
from tests.pushgateway import pushgateway


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(BuildInfo(version="1", engine="reference", profile="fast_dev", model="m"))


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MetricsServer]:
    with MetricsServer(metrics.registry, 0, metrics.progress, Health(metrics, 900)) as server:
        yield server


def ask(
    server: MetricsServer, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    url = f"http://{host}:{server.port}{path}"
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - always http
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_metrics_are_served_as_text_and_as_openmetrics(
    server: MetricsServer, metrics: Metrics
) -> None:
    metrics.logged({"loss": 1.25})
    status, headers, body = ask(server, "/metrics")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert b"\nforge_train_loss 1.25\n" in body
    _, headers, body = ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    assert "forge_s3_bytes" in {family.name for family in families}


def test_metrics_are_compressed_when_asked_for(server: MetricsServer) -> None:
    _, headers, body = ask(server, "/metrics", **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert b"forge_run_phase" in gzip.decompress(body)


def test_the_query_is_not_parsed(server: MetricsServer) -> None:
    assert b"forge_run_phase" in ask(server, "/metrics?name[]=other")[2]


def test_progress_is_json_without_nan(server: MetricsServer, metrics: Metrics) -> None:
    metrics.logged({"loss": float("nan")})
    status, headers, body = ask(server, "/progress")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    progress = json.loads(body, parse_constant=pytest.fail)
    assert (progress["phase"], progress["loss"]) == ("starting", None)


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/favicon.ico", "/..%2f..%2fetc/passwd"])
def test_anything_else_is_not_found(server: MetricsServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_reading_is_allowed(server: MetricsServer, method: str) -> None:
    assert ask(server, "/metrics", method)[0] == 405


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/progress"])
def test_head_has_no_body(server: MetricsServer, path: str) -> None:
    status, _, body = ask(server, path, "HEAD")
    assert (status, body) == (200, b"")


ODD_REQUESTS = {
    "a huge header": b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 1_000 + b"\r\n",
    "a long query": b"GET /metrics?" + b"q" * 10_000 + b" HTTP/1.1\r\n\r\n",
    "a longer path": b"GET /" + b"p" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "HTTP/0.9": b"GET /metrics\r\n",
    "HTTP/9.9": b"GET /metrics HTTP/9.9\r\n\r\n",
    "pipelined garbage": b"GET /healthz HTTP/1.1\r\n\r\n\x00\xff\xfe garbage \r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a body that lies": b"POST /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\nx",
    "bad bytes in the path": b"GET /\xff\xfe%zz HTTP/1.1\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("request_bytes", ODD_REQUESTS.values(), ids=ODD_REQUESTS.keys())
def test_an_odd_request_disturbs_nobody(
    server: MetricsServer, request_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        try:
            client.sendall(request_bytes)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except OSError:
            pass  # the server may hang up on it
    assert ask(server, "/healthz")[0] == 200
    assert capfd.readouterr().err == "", "a client must not be able to fill the log"


def test_a_fault_in_progress_is_a_500_and_the_server_lives(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("broken")

    with MetricsServer(metrics.registry, 0, broken, Health(metrics, 900)) as server:
        assert ask(server, "/progress")[0] == 500
        assert ask(server, "/metrics")[0] == 200
    assert "/progress could not be answered" in caplog.text


def test_ipv6_is_served_too(server: MetricsServer) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    assert ask(server, "/healthz", host="[::1]")[0] == 200


def test_a_taken_port_names_the_setting(metrics: Metrics, server: MetricsServer) -> None:
    with pytest.raises(SettingsError) as caught:
        MetricsServer(metrics.registry, server.port, metrics.progress, Health(metrics, 900))
    assert "FORGE_METRICS_PORT" in str(caught.value)
    assert str(server.port) in str(caught.value)
    assert "in use" in str(caught.value)


def test_the_port_is_free_again_after_it(metrics: Metrics) -> None:
    with MetricsServer(metrics.registry, 0, metrics.progress, Health(metrics, 900)) as server:
        port = server.port
        assert ask(server, "/healthz")[0] == 200
    with MetricsServer(metrics.registry, port, metrics.progress, Health(metrics, 900)) as server:
        assert ask(server, "/healthz")[0] == 200


def test_a_client_that_hangs_holds_up_neither_others_nor_the_exit() -> None:
    code = """
import socket, urllib.request
from job.metrics import BuildInfo, Health, Metrics, MetricsServer
metrics = Metrics(BuildInfo("1", "e", "p", "m"))
server = MetricsServer(metrics.registry, 0, metrics.progress, Health(metrics, 900)).__enter__()
silent = socket.create_connection(("127.0.0.1", server.port))
silent.sendall(b"GET /metr")
print(urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz").read())
server.__exit__(None, None, None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "b'ok: starting\\n'\n"
    assert done.stderr == ""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("phase", ["starting", "data", "model", "evaluation", "publishing"])
def test_other_phases_may_be_silent_for_longer(phase: Any) -> None:
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    metrics.phase(phase)
    clock.now = 3_600
    assert Health(metrics, 900)() == (True, f"ok: {phase}")
    clock.now = 3_601
    assert Health(metrics, 900)() == (
        False,
        (
            f"stalled: no sign of life for 3601 s in phase {phase} "
            "(4 times FORGE_STALL_SECONDS, which is 900)"
        ),
    )


@pytest.mark.parametrize("phase", ["data", "model", "publishing"])
def test_a_byte_from_or_to_storage_is_a_sign_of_life(phase: Any) -> None:
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    metrics.phase(phase)
    for _ in range(5):
        clock.now += 3_000
        metrics.received(1)
        assert Health(metrics, 900)()[0]
        clock.now += 3_000
        metrics.sent(1)
        assert Health(metrics, 900)()[0]


def test_a_request_that_is_tried_again_is_a_sign_of_life() -> None:
    """How long an outage is waited out is the business of storage's patience."""
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    metrics.phase("publishing")
    events: list[tuple[Callable[[str], None], str]] = [
        (metrics.retried, "PutObject"),
        (metrics.checkpoint_failed, "unavailable"),
    ]
    for event, word in events:
        clock.now += 3_000
        event(word)
        assert Health(metrics, 900)()[0]
    clock.now += 3_601
    assert not Health(metrics, 900)()[0]


def test_a_heartbeat_hides_no_phase_that_hangs(bucket: str) -> None:
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    metrics.phase("evaluation")
    storage = open_storage(f"{bucket}/out/run", metrics.bookkeeping)
    ledger = Ledger.claim(storage, "run", version="1", conditional_writes=True)
    clock.now = 3_601
    ledger.heartbeat(Progress())
    assert not Health(metrics, 900)()[0]
    labels = {"direction": "sent"}
    assert metrics.registry.get_sample_value("forge_s3_bytes_total", labels) != 0


def test_an_upload_in_the_background_hides_no_step_that_hangs() -> None:
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    metrics.phase("training")
    clock.now = 901
    metrics.sent(1_000_000)
    assert not Health(metrics, 900)()[0]


@pytest.mark.parametrize("phase", ["finished", "preempted", "failed"])
def test_a_run_that_lingers_is_well(phase: Any) -> None:
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    metrics.phase(phase)
    clock.now = 1e6
    assert Health(metrics, 900)()[0]


def test_a_step_that_hangs_turns_healthz_503_until_it_moves() -> None:
    clock = Clock()
    metrics = Metrics(BuildInfo("1", "e", "p", "m"), RunState(clock))
    with MetricsServer(metrics.registry, 0, metrics.progress, Health(metrics, 900)) as server:
        clock.now = 5_000  # the model loaded for longer than a stall may last
        metrics.phase("training")
        clock.now += 800
        assert ask(server, "/healthz")[0] == 200
        metrics.micro_step_done()
        clock.now += 901
        status, _, body = ask(server, "/healthz")
        assert status == 503
        assert body == (
            b"stalled: no micro-batch for 901 s after step 0 (FORGE_STALL_SECONDS is 900)\n"
        )
        metrics.micro_step_done()
        assert ask(server, "/healthz")[0] == 200


class Gateway(HTTPServer):
    """Takes pushes and remembers them; answers with `status`."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _GatewayHandler)
        self.status = status
        self.got: list[tuple[str, str, str | None, bytes]] = []


class _GatewayHandler(BaseHTTPRequestHandler):
    server: Gateway

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.command, self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Quiet."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        yield gateway
        gateway.shutdown()


def test_push_groups_by_run(gateway: Gateway, metrics: Metrics) -> None:
    assert push(f"http://127.0.0.1:{gateway.server_port}", metrics, "run-1")
    ((method, path, login, body),) = gateway.got
    assert (method, path, login) == ("PUT", "/metrics/job/forge-job/run_id/run-1", None)
    assert b"forge_safe_to_preempt 1.0" in body


def test_push_logs_in_and_logs_no_password(
    gateway: Gateway, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = f"http://me:p%40ssword9@127.0.0.1:{gateway.server_port}/base/"
    assert push(url, metrics, "run-1")
    assert gateway.got[0][1] == "/base/metrics/job/forge-job/run_id/run-1"
    assert gateway.got[0][2] == "Basic bWU6cEBzc3dvcmQ5"
    gateway.status = 403
    assert not push(url, metrics, "run-1")
    assert "were not pushed" in caplog.text
    assert "ssword9" not in caplog.text


def test_a_password_that_ought_to_be_quoted_is_not_logged_either(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    assert not push("http://me:pass/word9@127.0.0.1:9091", metrics, "run-1")
    assert "were not pushed" in caplog.text
    assert "word9" not in caplog.text


def test_a_real_gateway_holds_the_last_push_of_each_run(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pushgateway(tmp_path / "gateway") as gateway:
        metrics.attempt(1, step=3)
        metrics.logged({"eval_loss": 1.0})
        assert push(gateway.url(), metrics, "run-1")
        assert push(gateway.url(), metrics, "run-2")
        later = Metrics(BuildInfo("1", "reference", "fast_dev", "m"))
        later.attempt(2, step=5)
        assert push(gateway.url(), later, "run-1")
        assert gateway.value("forge_global_step", run_id="run-1") == 5
        assert gateway.value("forge_global_step", run_id="run-2") == 3
        losses = [s for s in gateway.samples() if s.name == "forge_eval_loss"]
        assert [s.labels["run_id"] for s in losses] == ["run-2"], "replaced as a whole"
        assert not push(gateway.url(password="wrong-pass-8"), later, "run-1")
    assert "401" in caplog.text
    assert "wrong-pass-8" not in caplog.text


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "], ids=["silent", "drips"])
def test_a_gateway_that_hangs_is_left_after_a_while(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    released = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while not released.is_set():
                try:
                    connection.sendall(answer[:1] and answer)
                except OSError:
                    return
                released.wait(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        url = f"http://me:password9@127.0.0.1:{listener.getsockname()[1]}"
        try:
            assert not push(url, metrics, "run-1", timeout_seconds=0.3)
        finally:
            released.set()
            thread.join()
    assert "were not pushed" in caplog.text
    assert "password9" not in caplog.text


def test_a_gateway_that_is_down_is_only_warned_about(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
        url = f"http://me:password9@127.0.0.1:{taken.getsockname()[1]}"
        assert not push(url, metrics, "run-1")
    assert "were not pushed" in caplog.text
    assert "password9" not in caplog.text
