"""Two processes on one run: the older is frozen while it writes, and wakes up too late."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.observer import result_of
from tests.chaos.proxy import Fault, Proxy, Request, proxied
from tests.chaos.runs import Ground, Reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def apart(place: Ground) -> Iterator[tuple[Proxy, str]]:
    """A proxy for the older attempt alone: its log holds nobody else's requests."""
    with proxied(place.direct["AWS_ENDPOINT_URL_S3"]) as (proxy, url):
        yield proxy, url


class Freezer:
    """A rule that freezes the process at its first PUT of a key, and holds that request up."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.pid = 0
        self.frozen = threading.Event()
        self.thaw = threading.Event()

    def __call__(self, request: Request) -> Fault | None:
        if request.method != "PUT" or self._key not in request.path or self.frozen.is_set():
            return None
        return Fault(before=self._freeze)

    def _freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen.set()
        self.thaw.wait(120)


@pytest.mark.parametrize(
    ("key", "run_id"),
    [
        ("adapter_model.safetensors", "frozen-in-a-checkpoint"),
        ("/run.json", "frozen-in-a-swap"),
        ("/adapter/adapter_model.safetensors", "frozen-while-publishing"),
        ("/adapter/manifest.json", "frozen-at-the-end-of-publishing"),
        ("/report/report.json", "frozen-while-reporting"),
    ],
)
def test_who_wakes_up_too_late_writes_nothing_more(
    place: Ground,
    apart: tuple[Proxy, str],
    references: Callable[[str], Reference],
    key: str,
    run_id: str,
) -> None:
    proxy, url = apart
    freezer = Freezer(key)
    if key == "/run.json":
        # Not at its claim: it is to be the owner when it is frozen.
        proxy.rule = lambda request: freezer(request) if request.number > 40 else None
    else:
        proxy.rule = freezer
    env = place.settings(run_id, "dropout")
    older_log, newer_log = (place.folder / f"{run_id}-{n}.log" for n in ("older", "newer"))
    freezer.pid = older = place.start(env | {"AWS_ENDPOINT_URL_S3": url}, older_log)
    assert freezer.frozen.wait(120), older_log.read_text()
    observer = place.observer(run_id)
    observer.look()

    assert place.run(env, newer_log) == 0, newer_log.read_text()
    seen = len(proxy.requests)
    before = {info.key: info.etag for info in observer.storage.list()}
    freezer.thaw.set()
    os.kill(older, signal.SIGCONT)

    assert place.ended(older, older_log) == 76, older_log.read_text()
    observer.look()
    assert observer.violations == []
    own = f"/out/{run_id}/checkpoints/"
    late = [path for path in proxy.writes(after=seen) if own not in path or "-001/" not in path]
    assert late == []
    after = {info.key: info.etag for info in observer.storage.list()}
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert all(k.startswith("checkpoints/") and "-001/" in k for k in changed), changed
    assert result_of(observer.storage) == references("dropout").result
