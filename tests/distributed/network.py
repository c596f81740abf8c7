"""Two nodes as two network namespaces on one bridge (Linux, root), and an S3 server beside them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

_NET = f"198.{18 + os.getpid() // 256 % 2}.{os.getpid() % 256}"
"""Of the range that is kept for measuring networks: neither the machine's own, nor that of other
tests on it."""
_HOST = f"{_NET}.1"


@dataclass(frozen=True)
class Nodes:
    """Each has one interface, `eth0`, to the other and to the store."""

    prefix: str
    store_port: int

    def env(self, number: int) -> dict[str, str]:
        """What a cluster sets for the pod on that node; the store as it is seen from there."""
        return {
            "PET_NNODES": "2",
            "PET_NPROC_PER_NODE": "1",
            "PET_NODE_RANK": str(number),
            "PET_MASTER_ADDR": f"{_NET}.10",
            "AWS_ENDPOINT_URL_S3": f"http://{_HOST}:{self.store_port}",
            "NO_PROXY": _HOST,
            "no_proxy": _HOST,
            # In a pod the host's own name is that interface's; a namespace shares the machine's.
            "GLOO_SOCKET_IFNAME": "eth0",
        }

    def namespace(self, number: int) -> Path:
        return Path("/run/netns") / f"{self.prefix}n{number}"

    def on(self, number: int, command: Sequence[str]) -> list[str]:
        """`command`, run on that node."""
        return ["ip", "netns", "exec", f"{self.prefix}n{number}", *command]

    def cut_off(self, number: int) -> None:
        """No packet goes to that node or comes from it, and nobody is told."""
        _ip("link", "set", f"{self.prefix}v{number}", "down")

    def connect(self, number: int) -> None:
        _ip("link", "set", f"{self.prefix}v{number}", "up")


@contextmanager
def two_nodes(store_url: str) -> Iterator[Nodes]:
    """Skips the test where namespaces can't be made. `store_url` is on the loopback device."""
    prefix = f"fj{os.getpid()}"
    with ExitStack() as stack:
        _make_bridge(prefix, stack)
        for number in range(2):
            _make_node(prefix, number, stack)
        port = stack.enter_context(_relay(_HOST, urlsplit(store_url).port or 80))
        yield Nodes(prefix, port)


def _make_bridge(prefix: str, stack: ExitStack) -> None:
    if shutil.which("ip") is None:
        pytest.skip("`ip` (iproute2) is not installed: no network namespaces")
    try:
        _ip("link", "add", f"{prefix}b", "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces need rights that are not here: {error.stderr.strip()}")
    stack.callback(_ip, "link", "delete", f"{prefix}b")
    _ip("address", "add", f"{_HOST}/24", "dev", f"{prefix}b")
    _ip("link", "set", f"{prefix}b", "up")


def _make_node(prefix: str, number: int, stack: ExitStack) -> None:
    space, outside = f"{prefix}n{number}", f"{prefix}v{number}"
    _ip("netns", "add", space)
    stack.callback(_ip, "netns", "delete", space)
    _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
    _ip("link", "set", outside, "master", f"{prefix}b", "up")
    _ip("-n", space, "address", "add", f"{_NET}.{10 + number}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def _relay(host: str, to_port: int) -> Iterator[int]:
    """The port at `host` whose connections go on to `to_port` of the loopback device."""
    with socket.create_server((host, 0)) as server:

        def accept() -> None:
            while True:
                try:
                    incoming, _ = server.accept()
                except OSError:
                    return  # closed
                outgoing = socket.create_connection(("127.0.0.1", to_port))
                pair = (incoming, outgoing)
                threading.Thread(target=_carry, args=pair, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _carry(incoming: socket.socket, outgoing: socket.socket) -> None:
    with incoming, outgoing:
        back = threading.Thread(target=_pump, args=(outgoing, incoming), daemon=True)
        back.start()
        _pump(incoming, outgoing)
        back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either has gone: so does the connection to the other
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR if source.fileno() < 0 else socket.SHUT_WR)
