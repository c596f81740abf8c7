"""A real Pushgateway with a password, as Debian packages it."""

from __future__ import annotations

import base64
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.k8s.chart import tool
from tests.ports import own_port

USER = "ml"
PASSWORD = "pass-word-9"
_HASHED = "$2b$04$zmzCH5g592ElQ0rNIR9W0.qHofSVbO6DGgGsFgDUc6k8uk.6s5AbW"
"""Its bcrypt hash, the one form that the server takes."""
DEADLINE_SECONDS = 60


class Pushgateway:
    """Where it is, and what lies there."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, password: str = PASSWORD) -> str:
        return f"http://{USER}:{password}@127.0.0.1:{self.port}"

    def samples(self) -> list[Sample]:
        """What a Prometheus would scrape there of our job."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics")
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - always http
            families = text_string_to_metric_families(answer.read().decode())
            every = [sample for family in families for sample in family.samples]
        return [sample for sample in every if sample.labels.get("job") == "forge-job"]

    def value(self, name: str, **labels: str) -> float:
        """Of the one series that has this name and these labels."""
        wanted = labels.items()
        [found] = [s for s in self.samples() if s.name == name and wanted <= s.labels.items()]
        return float(found.value)


@contextmanager
def pushgateway(folder: Path) -> Iterator[Pushgateway]:
    """Started, with a log and a configuration in an empty `folder`, and stopped at the end."""
    folder.mkdir()
    (folder / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {USER: _HASHED}}))
    program = tool("prometheus-pushgateway")
    with own_port() as port, (folder / "log").open("w") as log:
        gateway = Pushgateway(port)
        process = subprocess.Popen(
            [
                program,
                f"--web.listen-address=127.0.0.1:{gateway.port}",
                f"--web.config.file={folder / 'web.yml'}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _wait(gateway)
            yield gateway
        finally:
            process.kill()
            process.wait()


def _wait(gateway: Pushgateway) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            gateway.samples()
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
