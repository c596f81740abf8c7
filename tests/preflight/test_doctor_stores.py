"""Clock, store and data, against a real S3 server and what stands between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from job.errors import AccessDenied, DataError, SettingsError, Unavailable
from job.preflight.checks import Finding
from job.preflight.doctor import stores
from job.storage import open_storage
from tests.storage.wire import Answer, Call, Interpose, s3_error

# -- the clock ------------------------------------------------------------------------------------


@contextmanager
def telling(date: Callable[[], str | None]) -> Iterator[str]:
    """A store that refuses whoever asks, and says what time it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            if (told := date()) is not None:
                self.send_header("Date", told)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def clock(monkeypatch: pytest.MonkeyPatch, date: Callable[[], str | None]) -> str:
    with telling(date) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        found = stores.clock("s3://bucket/out")
    return f"{found.result}: {found.detail}" if isinstance(found, Finding) else f"ok: {found}"


def test_the_clock_of_the_server(bucket: str) -> None:
    assert stores.clock(bucket) in ("within 1 s of the store's", "within 2 s of the store's")


@pytest.mark.parametrize(
    ("ahead", "result", "said"),
    [
        (0, "ok", "within 1 s"),
        (20, "ok", "within "),
        (-20, "ok", "within "),
        (60, "warning", "s ahead of the store's; S3 refuses"),
        (-60, "warning", "s behind the store's; S3 refuses"),
    ],
)
def test_a_clock_that_is_off(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, ahead: int, result: str, said: str
) -> None:
    found = clock(monkeypatch, lambda: formatdate(time.time() - ahead, usegmt=True))
    assert found.startswith(f"{result}: ")
    assert said in found


@pytest.mark.parametrize(("ahead", "said"), [(400, "s ahead"), (-400, "s behind")])
def test_a_clock_that_is_far_off(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, ahead: int, said: str
) -> None:
    with pytest.raises(SettingsError, match=f"clock: this machine's is (399|400|401) {said}"):
        clock(monkeypatch, lambda: formatdate(time.time() - ahead, usegmt=True))


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_store_that_does_not_tell_the_time(
    aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, date: str | None
) -> None:
    with pytest.raises(Unavailable, match="did not tell its time"):
        clock(monkeypatch, lambda: date)


def test_no_store_to_ask(aws_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = stores.clock("/mnt/out")
    assert isinstance(found, Finding)
    assert found.result == "not checked"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9: did not tell its time: Could"):
        stores.clock("s3://bucket/out")


# -- the data -------------------------------------------------------------------------------------


def test_data(bucket: str, tmp_path: Path) -> None:
    storage = open_storage(bucket)
    storage.write("data/a.jsonl", b"{}\n" * 100)
    storage.write("data/b.jsonl", b"{}\n" * 200)
    storage.write("one.jsonl", b"")
    (tmp_path / "local.jsonl").write_bytes(b"{}\n")
    uris = [f"{bucket}/data/", f"{bucket}/one.jsonl", str(tmp_path)]
    assert stores.data(uris) == "4 file(s), 0.0 MB, can be listed and read"


def test_data_that_are_not_there(bucket: str) -> None:
    open_storage(bucket).write("data/readme.txt", b"no data")
    with pytest.raises(DataError, match="holds no"):
        stores.data([f"{bucket}/data/"])
    with pytest.raises(SettingsError, match="does not exist"):
        stores.data([f"{bucket}/data/a.jsonl"])


@pytest.mark.parametrize("uri", ["data/", "data/a.jsonl"])
def test_data_that_can_be_listed_and_not_read(interpose: Interpose, bucket: str, uri: str) -> None:
    open_storage(bucket).write("data/a.jsonl", b"{}\n")

    def unreadable(call: Call) -> Answer | None:
        reads = call.method == "GET" and "a.jsonl" in call.path
        return s3_error(403, "AccessDenied") if reads else None

    interpose(unreadable)
    with pytest.raises(AccessDenied, match=r"a\.jsonl"):
        stores.data([f"{bucket}/{uri}"])


def test_data_that_go_while_they_are_looked_at(interpose: Interpose, bucket: str) -> None:
    open_storage(bucket).write("data/a.jsonl", b"{}\n")
    interpose(
        lambda call: (
            s3_error(404, "NoSuchKey") if call.method == "GET" and "a.jsonl" in call.path else None
        )
    )
    with pytest.raises(DataError, match="was changed or removed"):
        stores.data([f"{bucket}/data/"])
