"""A real S3 store of another kind: one-node Ceph with its RADOS Gateway, in memory, on loopback.

    python -m tests.ceph --folder F

starts the daemons as its children, writes `F/endpoint`, and ends them when its standard input is
closed, so that none outlives whoever started it. `CephServer` is the other side of it, with the
interface of `job.demo.s3_server.S3Server`. scripts/system_packages.sh installs Debian's packages.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from job.ranks.node import free_port

_HOST: Final = "127.0.0.1"
_PROGRAMS: Final = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool")
_START_SECONDS: Final = 120.0
_ACCESS_KEY: Final = "ceph-test"
_SECRET_KEY: Final = "ceph-test-secret"
TENANT_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "ceph-tenant",
    "AWS_SECRET_ACCESS_KEY": "ceph-tenant-secret",
}
"""Of the user `forge-job`, who has no rights but those that a bucket's policy gives."""
_MEMORY_BYTES: Final = 6 << 30


def required() -> None:
    """Skip the test where Ceph is not installed; in CI, where it has to be, fail."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} not installed: see scripts/system_packages.sh"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class CephServer:
    """Starts the node, as a context manager. `env` are the variables that reach it."""

    def __init__(self) -> None:
        self._port = 0

    @property
    def endpoint_url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), _HOST]))
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def create_bucket(self, name: str) -> None:
        import boto3

        boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=_ACCESS_KEY,
            aws_secret_access_key=_SECRET_KEY,
            region_name="us-east-1",
        ).create_bucket(Bucket=name)

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="ceph-"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ceph", "--folder", str(self._folder)],
            stdin=subprocess.PIPE,
        )
        endpoint = self._folder / "endpoint"
        deadline = time.monotonic() + _START_SECONDS
        while not endpoint.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError("Ceph did not start; its words are above")
            time.sleep(0.1)
        self._port = int(endpoint.read_text())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()  # closes its standard input
        shutil.rmtree(self._folder, ignore_errors=True)


class _Node:
    """The daemons of one node, each a child process in the foreground."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._keyring = folder / "keyring"
        self._ports = [free_port() for _ in range(3)]
        for name in ("mon", "osd", "mgr", "rgw", "log"):
            (folder / name).mkdir(parents=True)
        self._conf = folder / "ceph.conf"
        self._conf.write_text(_CONFIGURATION.format(**self._names()))

    @property
    def port(self) -> int:
        return self._ports[2]

    def start(self) -> None:
        self._make_keys()
        self._make_monitor()
        self._daemon("ceph-mon", "-i", "a")
        self._run("ceph", "auth", "import", "-i", self._keyring)
        self._daemon("ceph-mgr", "-i", "x")
        disk = uuid.uuid4()
        self._run("ceph", "osd", "new", disk)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self._daemon("ceph-osd", "-i", "0")
        self._daemon("radosgw", "-n", "client.rgw")
        self._wait_for_the_gateway()
        self._user("test", _ACCESS_KEY, _SECRET_KEY)
        self._user("forge-job", *TENANT_KEYS.values())

    def _user(self, name: str, access_key: str, secret_key: str) -> None:
        keys = (f"--access-key={access_key}", f"--secret-key={secret_key}")
        command = ("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}")
        self._run(*command, *keys)

    def stop(self) -> None:
        """They hold nothing worth a farewell."""
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    def _names(self) -> dict[str, object]:
        v2, v1, gateway = self._ports
        return {
            "fsid": uuid.uuid4(),
            "host": _HOST,
            "v2": v2,
            "v1": v1,
            "gateway": gateway,
            "folder": self._folder,
            "memory": _MEMORY_BYTES,
        }

    def _make_keys(self) -> None:
        # With authentication off, the gateway hangs.
        everything = (
            "--cap",
            "mon",
            "allow *",
            "--cap",
            "osd",
            "allow *",
            "--cap",
            "mgr",
            "allow *",
        )
        self._run("ceph-authtool", "--create-keyring", self._keyring, "--gen-key", "-n", "mon.",
                  "--cap", "mon", "allow *", configured=False)  # fmt: skip
        for name in ("client.admin", "client.rgw", "mgr.x", "osd.0"):
            self._run(
                "ceph-authtool",
                self._keyring,
                "--gen-key",
                "-n",
                name,
                *everything,
                configured=False,
            )

    def _make_monitor(self) -> None:
        v2, v1, _ = self._ports
        addresses = f"[v2:{_HOST}:{v2},v1:{_HOST}:{v1}]"
        fsid = self._conf.read_text().split("fsid = ")[1].split()[0]
        monmap = self._folder / "monmap"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap,
                  configured=False)  # fmt: skip
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", self._keyring)

    def _run(self, program: str, *arguments: object, configured: bool = True) -> None:
        conf = ["-c", str(self._conf)] if configured else []
        done = subprocess.run(
            [program, *conf, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self._folder / "log" / f"{program}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [program, "-c", str(self._conf), "-f", *arguments], stdout=out, stderr=out
                )
            )

    def _wait_for_the_gateway(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://{_HOST}:{self.port}", timeout=2).close()
            except urllib.error.HTTPError:
                return  # it answers
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise RuntimeError("the gateway does not answer")


_CONFIGURATION: Final = """\
[global]
fsid = {fsid}
mon host = [v2:{host}:{v2},v1:{host}:{v1}]
public addr = {host}
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
mon allow pool size one = true
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = {memory}
mon data = {folder}/mon
osd data = {folder}/osd
mgr data = {folder}/mgr
rgw data = {folder}/rgw
run dir = {folder}
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
log file = {folder}/log/$name.log
mon data avail crit = 1
ms bind ipv6 = false
[client.rgw]
rgw frontends = beast endpoint={host}:{gateway}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input is closed, or SIGTERM."""
    parser = argparse.ArgumentParser(description="One-node Ceph with S3, in memory.")
    parser.add_argument("--folder", type=Path, required=True)
    folder: Path = parser.parse_args(argv).folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    node = _Node(folder)
    try:
        node.start()
        unfinished = folder / "endpoint.unfinished"
        unfinished.write_text(str(node.port))
        unfinished.replace(folder / "endpoint")
        while os.read(0, 1024):
            pass
    finally:
        node.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
