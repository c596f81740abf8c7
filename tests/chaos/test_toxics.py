"""Everything that a network and a store can do to a run: what passes is survived, what doesn't has
its exit code, and nothing torn is ever listed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from job.ledger import read_record
from tests.chaos.observer import Observer, result_of
from tests.chaos.proxy import Fault, Request, Rule, nothing
from tests.chaos.runs import Ground, Reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHECKPOINT = "/checkpoints/"
DROP = Fault(drop=True)


@dataclass
class Every:
    """The fault meets every n-th request that fits, of the first `times` of them."""

    fault: Fault
    n: int = 1
    method: str = ""
    key: str = ""
    skip: int = 0
    times: int = 10**9
    seen: int = field(default=0, init=False)
    met: int = field(default=0, init=False)

    def __call__(self, request: Request) -> Fault | None:
        if self.method not in ("", request.method) or self.key not in request.path:
            return None
        self.seen += 1
        if self.seen <= self.skip or (self.seen - self.skip) % self.n or self.met >= self.times:
            return None
        self.met += 1
        return self.fault


SURVIVED: dict[str, Callable[[], Every]] = {
    "latency": lambda: Every(Fault(delay_seconds=0.05)),
    "little bandwidth": lambda: Every(Fault(bytes_per_second=1e6), method="PUT"),
    "requests that break off": lambda: Every(Fault(cut_request=200), 4, "PUT", "/out/"),
    "answers that break off": lambda: Every(Fault(cut_answer=5), 4, "GET"),
    "slow down": lambda: Every(Fault(status=503, code="SlowDown"), 3),
    "a burst of server errors": lambda: Every(
        Fault(status=500, code="InternalError"), skip=50, times=25
    ),
    "an outage in training": lambda: Every(
        Fault(status=503, code="ServiceUnavailable"), method="PUT", key=CHECKPOINT, times=40
    ),
    "swaps whose answers are lost": lambda: Every(Fault(lose_answer=True), 2, "PUT", "/run.json"),
    "uploads whose answers are lost": lambda: Every(Fault(lose_answer=True), 3, "PUT", "/out/"),
    "an adapter that is damaged on its way": lambda: Every(
        Fault(flip_request=True), method="PUT", key="/adapter/adapter_model", times=1
    ),
    "an adapter that is damaged when read back": lambda: Every(
        Fault(flip_answer=True), method="GET", key="/adapter/adapter_model", times=1
    ),
    "credentials that expire and are renewed": lambda: Every(
        Fault(status=403, code="ExpiredToken"), method="PUT", key=CHECKPOINT, skip=10, times=3
    ),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_what_passes_is_survived(
    place: Ground, references: Callable[[str], Reference], name: str
) -> None:
    rule = SURVIVED[name]()
    run_id = name.replace(" ", "-")
    log = place.folder / f"{run_id}.log"
    expected = references("dropout").result
    place.proxy.rule = rule
    observer = place.observer(run_id)
    pid = place.start(place.settings(run_id, "dropout"), log)
    while place.zygote.code(pid, 0.3) is None:
        observer.look()
    assert place.ended(pid, log) == 0, log.read_text()
    observer.look()
    assert observer.violations == []
    assert rule.met > 0, "the fault never struck"
    assert result_of(observer.storage) == expected


@pytest.mark.parametrize("where", ["in storage", "on the way here"])
def test_a_damaged_checkpoint_is_never_trained_on(
    place: Ground, references: Callable[[str], Reference], where: str
) -> None:
    run_id = f"damaged-{where.replace(' ', '-')}"
    log = place.folder / f"{run_id}.log"
    env = place.settings(run_id, "dropout")
    if where == "in storage":
        # Of every checkpoint from the third on: the newest of them is of no use.
        place.proxy.rule = Every(
            Fault(flip_request=True), method="PUT", key="/optimizer.pt", skip=1
        )
    pid = place.start(env, log)
    storage = place.observer(run_id).storage
    while (found := read_record(storage)) is None or found[0].durable_step < 6:
        assert place.zygote.code(pid, 0.02) is None, log.read_text()
    os.kill(pid, signal.SIGKILL)
    place.ended(pid, log)
    found = read_record(storage)
    assert found is not None
    newest = found[0].durable_step
    place.proxy.rule = nothing
    if where == "on the way here":
        place.proxy.rule = Every(
            Fault(flip_answer=True), method="GET", key="/optimizer.pt", times=1
        )

    second = place.folder / f"{run_id}-second.log"
    assert place.run(env, second) == 0, second.read_text()

    found = read_record(storage)
    assert found is not None
    attempt = found[0].attempts[-1]
    if where == "in storage":
        assert newest in [rejection.step for rejection in attempt.rejected]
        assert "another SHA-256" in attempt.rejected[0].reason
        assert attempt.from_step < newest
    else:
        assert attempt.rejected == []
        assert attempt.from_step == newest
    assert result_of(storage) == references("dropout").result


def failing(place: Ground, run_id: str, rule: Rule, **more: str) -> tuple[int, str, Observer]:
    log = place.folder / f"{run_id}.log"
    place.proxy.rule = rule
    code = place.run(place.settings(run_id, "dropout", **more), log)
    observer = place.observer(run_id)
    observer.look()
    assert observer.violations == []
    return code, log.read_text(), observer


def test_an_outage_beyond_patience_is_69(place: Ground) -> None:
    rule = Every(DROP, method="PUT", key=CHECKPOINT)
    more = {"FORGE_STORAGE_PATIENCE_SECONDS": "3", "AWS_MAX_ATTEMPTS": "2"}
    code, log, observer = failing(place, "beyond-patience", rule, **more)
    assert code == 69, log
    found = read_record(observer.storage)
    assert found is not None
    assert found[0].current.exit_code == 69


def test_permissions_that_are_taken_away_are_77(place: Ground) -> None:
    rule = Every(Fault(status=403, code="AccessDenied"), method="PUT", key=CHECKPOINT, skip=12)
    code, log, observer = failing(place, "taken-away", rule, FORGE_MAX_UPLOAD_FAILURES="2")
    assert code == 77, log
    found = read_record(observer.storage)
    assert found is not None
    assert (found[0].status, found[0].current.exit_code) == ("failed", 77)
    assert "s3:PutObject" in log


def test_a_store_that_never_answers_is_69(place: Ground) -> None:
    more = {"AWS_MAX_ATTEMPTS": "2"}
    code, log, _ = failing(place, "refused", Every(DROP, key="/out/refused"), **more)
    assert code == 69, log


def test_a_name_that_does_not_resolve_is_69(place: Ground) -> None:
    log = place.folder / "no-such-name.log"
    env = place.settings("no-such-name", "dropout", AWS_MAX_ATTEMPTS="2")
    code = place.run(env | {"AWS_ENDPOINT_URL_S3": "http://store.invalid"}, log)
    assert code == 69, log.read_text()


@pytest.mark.parametrize("key", [CHECKPOINT, "/run.json", "/data/rows.jsonl", "/adapter/"])
def test_a_store_that_hangs_does_not_hold_up_a_preemption(place: Ground, key: str) -> None:
    run_id = f"hangs-{key.strip('/').replace('/', '-').replace('.', '-')}"
    log = place.folder / f"{run_id}.log"
    rule = Every(Fault(hang=True), key=key, skip=3 if key == "/run.json" else 0)
    place.proxy.rule = rule
    env = place.settings(run_id, "dropout", FORGE_GRACE_SECONDS="4")
    pid = place.start(env, log)
    while not rule.met:
        assert place.zygote.code(pid, 0.02) is None, log.read_text()
    time.sleep(0.2)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    assert place.ended(pid, log) == 75, log.read_text()
    assert time.monotonic() - began < 30, "the connection would have hung for a minute"
    observer = place.observer(run_id)
    observer.look()
    assert observer.violations == []


def test_a_wall_clock_that_jumps_changes_nothing(
    place: Ground, references: Callable[[str], Reference]
) -> None:
    log = place.folder / "jumps.log"
    pid = place.start(place.settings("jumps", "dropout"), log, clock_jumps=True)
    assert place.ended(pid, log) == 0, log.read_text()
    observer = place.observer("jumps")
    observer.look()
    assert observer.violations == []
    assert result_of(observer.storage) == references("dropout").result
