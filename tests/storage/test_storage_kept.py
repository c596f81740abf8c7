"""Files that outlive whoever fetched them, on both backends and through real kills."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from job.errors import Preempted, Unavailable
from job.storage import Conflict, ObjectInfo, Storage, keep, open_storage
from tests.ledger.wrapped import Wrapped, wait_until
from tests.storage.counts import Counts
from tests.storage.wire import Answer, Call, Cut, Interpose

CONTENT = os.urandom(2_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Interrupted(Wrapped):
    """Raises after so many chunks of a stream, once."""

    def __init__(self, inner: Storage, chunks: int, error: BaseException) -> None:
        super().__init__(inner)
        self.offsets: list[int] = []
        self._left = chunks
        self._error: BaseException | None = error

    @contextmanager
    def stream(
        self, key: str, offset: int = 0, *, etag: str | None = None, version_id: str | None = None
    ) -> Iterator[Iterator[bytes]]:
        self.offsets.append(offset)
        with self.inner.stream(key, offset, etag=etag, version_id=version_id) as chunks:
            yield self._some(chunks)

    def _some(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._left == 0 and self._error is not None:
                error, self._error = self._error, None
                raise error
            self._left -= 1
            yield chunk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work" / "data.jsonl"


def stored(storage: Storage, content: bytes = CONTENT) -> ObjectInfo:
    storage.write("key", content)
    return storage.stat("key")


def left(path: Path) -> set[str]:
    return {found.name for found in path.parent.iterdir()} - {".lock"}


WHOLE = {"data.jsonl", "data.jsonl.json"}
PARTLY = {"data.jsonl.part", "data.jsonl.json"}


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["large", "empty"])
def test_it_is_fetched_once(storage: Storage, path: Path, content: bytes) -> None:
    info, sha256 = stored(storage, content), hashlib.sha256(content).hexdigest()
    assert keep(storage, info, path) == sha256
    assert path.read_bytes() == content
    assert left(path) == WHOLE

    again = Wrapped(storage)
    assert keep(again, info, path) == sha256
    assert again.calls == []


@pytest.mark.parametrize("error", [Preempted("SIGTERM"), Unavailable("gone")], ids=type)
def test_it_goes_on_where_it_stopped(storage: Storage, path: Path, error: BaseException) -> None:
    info, interrupted = stored(storage), Interrupted(storage, 1, error)
    with pytest.raises(type(error)):
        keep(interrupted, info, path)
    assert left(path) == PARTLY
    here = (path.parent / "data.jsonl.part").read_bytes()
    assert here
    assert CONTENT.startswith(here)

    assert keep(interrupted, info, path) == SHA256
    assert path.read_bytes() == CONTENT
    assert interrupted.offsets == [0, len(here)]


def test_another_object_begins_anew(storage: Storage, path: Path) -> None:
    info, other = stored(storage), CONTENT[::-1]
    with pytest.raises(Preempted):
        keep(Interrupted(storage, 1, Preempted()), info, path)
    changed = stored(storage, other)

    assert keep(storage, changed, path) == hashlib.sha256(other).hexdigest()
    assert path.read_bytes() == other
    assert keep(storage, stored(storage, CONTENT), path) == SHA256
    assert left(path) == WHOLE


def test_an_object_that_is_no_longer_there_leaves_nothing(storage: Storage, path: Path) -> None:
    info = stored(storage)
    with pytest.raises(Preempted):
        keep(Interrupted(storage, 1, Preempted()), info, path)
    stored(storage, CONTENT[::-1])

    with pytest.raises(Conflict):
        keep(storage, info, path)
    assert left(path) == set()


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"\xff", CONTENT[:-1] + b"?", None])
def test_what_was_damaged_since_is_fetched_anew(
    storage: Storage, path: Path, name: str, damage: bytes | None
) -> None:
    info = stored(storage)
    keep(storage, info, path)
    if damage is None:
        (path.parent / name).unlink()
    else:
        (path.parent / name).write_bytes(damage)

    assert keep(storage, info, path) == SHA256
    assert path.read_bytes() == CONTENT
    assert left(path) == WHOLE


def test_a_part_that_is_longer_than_the_object(storage: Storage, path: Path) -> None:
    info = stored(storage)
    with pytest.raises(Preempted):
        keep(Interrupted(storage, 1, Preempted()), info, path)
    (path.parent / "data.jsonl.part").write_bytes(CONTENT + b"more")

    assert keep(storage, info, path) == SHA256
    assert path.read_bytes() == CONTENT


def test_a_size_that_was_promised_and_not_sent(storage: Storage, path: Path) -> None:
    info = stored(storage)
    longer = ObjectInfo(info.key, info.size + 1, info.etag, info.version_id)
    with pytest.raises(Unavailable, match="sent 2000000 bytes of the 2000001"):
        keep(storage, longer, path)
    assert not path.exists()


KEEP = """
import sys, pathlib
from job.errors import Preempted
from job.lifecycle import StopToken
from job.storage import keep, open_storage

StopToken().install()
storage = open_storage(sys.argv[1])
try:
    keep(storage, storage.stat("key"), pathlib.Path(sys.argv[2]))
except Preempted as reason:
    sys.exit(reason.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_another_process_goes_on_after_a_kill(
    interpose: Interpose, bucket: str, path: Path, number: signal.Signals, code: int
) -> None:
    info = stored(open_storage(bucket))
    released, ranges = threading.Event(), []

    def hold_the_first(call: Call) -> Cut | None:
        if call.method != "GET":
            return None
        ranges.append(call.headers.get("Range"))
        return Cut(1_500_000, held=released) if len(ranges) == 1 else None

    interpose(hold_the_first)
    part = path.parent / "data.jsonl.part"
    child = subprocess.Popen([sys.executable, "-c", KEEP, bucket, path])
    try:
        wait_until(lambda: part.exists() and part.stat().st_size > 1_000_000)
        child.send_signal(number)
        assert child.wait(60) == code
    finally:
        child.kill()
        child.wait()
        released.set()
    here = part.stat().st_size
    assert CONTENT.startswith(part.read_bytes())

    counts = Counts()
    assert keep(open_storage(bucket, counts), info, path) == SHA256
    assert path.read_bytes() == CONTENT
    assert ranges == [None, f"bytes={here}-"]
    assert counts.bytes == {"received": len(CONTENT) - here}


def test_two_at_a_time_wait_for_each_other(
    interpose: Interpose, bucket: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    info = stored(open_storage(bucket))
    released, ranges = threading.Event(), []

    def hold_the_first(call: Call) -> Answer | Cut | None:
        ranges.append(call.headers.get("Range"))
        return Cut(1_000_000, held=released) if len(ranges) == 1 else None

    interpose(hold_the_first)
    with caplog.at_level(logging.WARNING, "job.storage"), ThreadPoolExecutor(2) as threads:
        first = threads.submit(keep, open_storage(bucket), info, path)
        wait_until(lambda: len(ranges) == 1)
        second = threads.submit(keep, open_storage(bucket), info, path)
        wait_until(lambda: "another process fetches" in caplog.text)
        released.set()
        assert {first.result(), second.result()} == {SHA256}
    assert path.read_bytes() == CONTENT
    assert len(ranges) == 2, "the second one found it there"
