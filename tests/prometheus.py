"""A real Prometheus server, which scrapes and evaluates as a cluster's does, only faster."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.chart import tool
from tests.ports import own_port

DEADLINE_SECONDS = 120


class Prometheus:
    """Targets may be added while it runs; their labels are those that the PodMonitor gives."""

    def __init__(self, folder: Path, rules: Path | None, port: int) -> None:
        self._folder = folder
        self._targets: list[dict[str, Any]] = []
        self.port = port
        config = {
            "global": {
                "scrape_interval": "250ms",
                "scrape_timeout": "250ms",
                "evaluation_interval": "500ms",
            },
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [
                {
                    "job_name": "forge-job",
                    "file_sd_configs": [
                        {"files": [str(folder / "targets.json")], "refresh_interval": "500ms"}
                    ],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._write_targets()

    def command(self) -> list[str]:
        program = tool("prometheus")
        return [
            program,
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def scrape(self, port: int, pod: str, run_id: str) -> None:
        """From now on."""
        labels = {"namespace": "ml", "pod": pod, "run_id": run_id}
        self._targets.append({"targets": [f"127.0.0.1:{port}"], "labels": labels})
        self._write_targets()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector; raises `HTTPError` for an expression that is none."""
        return list(self._get("query", query=expression)["result"])

    def value(self, expression: str) -> float:
        """Of an expression that has one."""
        [sample] = self.query(expression)
        return float(sample["value"][1])

    def history(self, expression: str, seconds: float) -> list[list[float]]:
        """Each series' values over the last `seconds`, oldest first."""
        now = time.time()
        found = self._get(
            "query_range", query=expression, start=now - seconds, end=now, step="0.25"
        )
        return [[float(value) for _, value in series["values"]] for series in found["result"]]

    def rules(self) -> list[dict[str, Any]]:
        [group] = self._get("rules")["groups"]
        return list(group["rules"])

    def wait_for(self, expression: str) -> None:
        """Until the expression is not empty."""
        self.wait_until(lambda: bool(self.query(expression)), expression)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except OSError:
                pass  # it starts
            time.sleep(0.1)
        raise AssertionError(f"Prometheus never saw {what}")

    def _get(self, path: str, **parameters: object) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return dict(json.loads(answer.read())["data"])

    def _write_targets(self) -> None:
        # Renamed: Prometheus must not read half a file.
        half = self._folder / "targets.half"
        half.write_text(json.dumps(self._targets))
        half.rename(self._folder / "targets.json")


@contextmanager
def prometheus(folder: Path, rules: Path | None = None) -> Iterator[Prometheus]:
    """Started, in an empty `folder`, and stopped at the end."""
    folder.mkdir()
    with own_port() as port, (folder / "log").open("w") as log:
        server = Prometheus(folder, rules, port)
        process = subprocess.Popen(server.command(), stdout=log, stderr=log)
        try:
            server.wait_until(lambda: server.query("vector(1)") != [], "anything")
            yield server
        finally:
            process.kill()
            process.wait()
