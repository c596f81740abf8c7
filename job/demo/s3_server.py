"""A real S3 server in a process of its own, for the demo and the tests: everything is in memory.

    python -m job.demo.s3_server --port 0 --port-file PATH

serves on 127.0.0.1 until SIGTERM. `S3Server` starts the same from Python and stops it for sure.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_HOST: Final = "127.0.0.1"
_MODULE: Final = "job.demo.s3_server"
_POLL_SECONDS: Final = 0.05
_CONDITIONS: Final = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}

_Application = Callable[[dict[str, Any], Any], Iterable[bytes]]
"""WSGI's."""


class S3Server:
    """Starts the server on a free port, as a context manager.

    `env` are the variables with which boto3, and any process that gets them, reaches it.
    """

    def __init__(self, start_seconds: float = 60.0) -> None:
        """`start_seconds` is how long the server may take until it listens."""
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def endpoint_url(self) -> str:
        return f"http://{_HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        if self._process is None:
            raise RuntimeError("the S3 server has not been started")
        return self._process.pid

    @property
    def env(self) -> dict[str, str]:
        no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), _HOST]))
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            # A proxy for the outside world would be asked for 127.0.0.1 too.
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def create_bucket(self, name: str) -> None:
        import boto3

        env = self.env
        boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
        ).create_bucket(Bucket=name)

    def __enter__(self) -> Self:
        """Returns once it answers. Raises `RuntimeError` if it ends or doesn't answer in time."""
        with tempfile.TemporaryDirectory() as folder:
            port_file = Path(folder, "port")
            # The pipe closes when this process ends, however it ends, and the server ends with it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, "--stop-at-eof", "--port-file", str(port_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
            )
            try:
                self._wait_until_it_answers(self._process, port_file)
            except BaseException:
                self._stop()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes], port_file: Path) -> None:
        deadline = time.monotonic() + self._start_seconds
        while not port_file.exists():
            if process.poll() is not None:
                raise RuntimeError(
                    f"the S3 server ended at once with code {process.returncode}; "
                    "is moto[s3,server] installed?"
                )
            if time.monotonic() > deadline:
                raise RuntimeError(f"the S3 server didn't start in {self._start_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        self._port = int(port_file.read_text())
        socket.create_connection((_HOST, self._port), timeout=self._start_seconds).close()

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # It holds nothing worth a farewell, and SIGKILL can't be missed.
            process.kill()
            process.communicate()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. The port file appears once the server listens."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        # moto binds in a thread, and would wait for ever for one that failed.
        socket.create_server((_HOST, arguments.port)).close()
    except OSError as error:
        parser.error(f"--port {arguments.port}: {error.strerror}")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)

    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=_HOST, port=arguments.port, verbose=False)
    server.start()
    served = server._server  # noqa: SLF001 (moto gives no other way to its application)
    served.app = OneSwapAtATime(served.app)
    _, port = server.get_host_and_port()
    print(f"http://{_HOST}:{port}", flush=True)
    if arguments.port_file is not None:
        _announce(arguments.port_file, port)
    if arguments.stop_at_eof:
        threading.Thread(target=_stop_at_eof, args=(stop,), daemon=True).start()
    stop.wait()
    return 0


class OneSwapAtATime:
    """Makes conditional writes atomic. moto looks at the condition first and puts the object then,
    in a thread for each request: of two swaps at once both could win.
    """

    def __init__(self, app: _Application) -> None:
        self._app = app
        self._swapping = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("PUT", "POST") or not _CONDITIONS & environ.keys():
            return self._app(environ, start_response)
        # First the whole body, which may be long on its way: nobody waits for that.
        length = environ.get("CONTENT_LENGTH")
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length or -1)))
        with self._swapping:
            return self._app(environ, start_response)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m job.demo.s3_server", description="S3 on 127.0.0.1, in memory."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--port-file", type=Path, help="the port is written here")
    parser.add_argument(
        "--stop-at-eof", action="store_true", help="stop when standard input is closed"
    )
    return parser


def _stop_at_eof(stop: threading.Event) -> None:
    # Not through sys.stdin: its lock, held by this daemon thread, breaks the interpreter's exit.
    while os.read(0, 1024):
        pass
    stop.set()


def _announce(path: Path, port: int) -> None:
    """Whole or not at all: somebody is polling for the file."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(str(port))
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
