"""After the end: a last push of the metrics, time for a last scrape, and no more than that."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings, load_settings
from job.errors import DataError, Fenced, Preempted, SettingsError, Stopped, Unavailable
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.stages.closing import farewell

ROOT = Path(__file__).resolve().parents[2]
FOR_EVER = 3600.0
"""Seconds; a test that waits for them fails by its timeout."""


def settings(**given: Any) -> Settings:
    required = {"run_id": "run-1", "dataset_uri": "/data", "output_uri": "/runs"}
    return load_settings(**(required | given))


def a_metrics() -> Metrics:
    return Metrics(BuildInfo("1", "reference", "fast_dev", "model"))


@pytest.mark.parametrize("error", [Preempted("x"), Fenced("x")])
def test_nobody_lingers_for_a_pod_that_is_wanted(error: BaseException) -> None:
    farewell(settings(metrics_linger_seconds=FOR_EVER), a_metrics(), StopToken(), error)


@pytest.mark.parametrize("error", [DataError("x"), SettingsError("x"), Unavailable("x"), None])
def test_every_other_end_can_be_scraped(error: BaseException | None) -> None:
    """An alert goes by the exit code, also of a run that was refused before its first step."""
    began = time.monotonic()
    farewell(settings(metrics_linger_seconds=0.3), a_metrics(), StopToken(), error)
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("cause", [Preempted("x"), Fenced("x")])
def test_nobody_lingers_after_a_stop_was_asked_for(cause: Stopped) -> None:
    stop = StopToken()
    stop.request(cause)
    farewell(settings(metrics_linger_seconds=FOR_EVER), a_metrics(), stop, None)


@pytest.mark.parametrize(("end", "code"), [("None", 0), ("Diverged('loss is nan')", 81)])
def test_a_signal_ends_the_lingering_and_changes_nothing_else(end: str, code: int) -> None:
    script = f"""
    import sys
    from job.stages.closing import farewell
    from job.config import load_settings
    from job.errors import Diverged
    from job.lifecycle import StopToken
    from job.metrics import BuildInfo, Metrics

    class Lingering(StopToken):
        def __init__(self):
            super().__init__()
            self.looks = 0

        @property
        def signalled(self):
            self.looks += 1
            if self.looks == 3:
                print("lingering", flush=True)
            return super().signalled

    stop = Lingering()
    stop.install()
    settings = load_settings(
        run_id="r", dataset_uri="/d", output_uri="/o", metrics_linger_seconds={FOR_EVER}
    )
    error = {end}
    farewell(settings, Metrics(BuildInfo("1", "e", "p", "m")), stop, error)
    sys.exit(error.exit_code if error else 0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("FORGE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    said = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (said, process.returncode, errors) == ("lingering\n", code, "")


class Gateway(http.server.BaseHTTPRequestHandler):
    """A Pushgateway's one request."""

    pushed: list[str]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.pushed.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the paths that were pushed to."""
    pushed: list[str] = []
    handler = type("Handler", (Gateway,), {"pushed": pushed})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", pushed
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("failed_in_background", [False, True])
def test_the_metrics_are_pushed_before_the_end(
    gateway: tuple[str, list[str]], failed_in_background: bool
) -> None:
    """A run that its own uploader stopped is one that people want to look at."""
    url, pushed = gateway
    stop, error = StopToken(), Unavailable("the store is down")
    if failed_in_background:
        stop.request(error)
    farewell(settings(pushgateway_url=url, metrics_linger_seconds=0), a_metrics(), stop, error)
    assert pushed == ["/metrics/job/forge-job/run_id/run-1"]
