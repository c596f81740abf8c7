"""Struck at each moment of publishing: the next attempt publishes, and trains nothing again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from job.ledger import read_record
from job.promotion import PROMOTED_KEY, is_named, promoted_beside
from job.storage import open_storage
from tests.chaos.observer import result_of
from tests.chaos.proxy import Fault, Request, nothing
from tests.chaos.runs import Ground, Reference

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WEIGHTS, MANIFEST, REPORT = (
    "/adapter/adapter_model.safetensors",
    "/adapter/manifest.json",
    "/report/report.html",
)


@pytest.mark.parametrize(
    ("key", "answered", "blow"),
    [
        (WEIGHTS, False, signal.SIGTERM),
        (WEIGHTS, True, signal.SIGKILL),
        (MANIFEST, False, signal.SIGKILL),
        (MANIFEST, True, signal.SIGTERM),
        (REPORT, False, signal.SIGKILL),
        (REPORT, True, signal.SIGTERM),
    ],
)
def test_the_next_attempt_publishes_without_training(
    place: Ground,
    references: Callable[[str], Reference],
    key: str,
    answered: bool,
    blow: signal.Signals,
) -> None:
    expected = references("dropout").result
    name = key.rsplit("/", 1)[1].replace(".", "-").replace("_", "-")
    run_id = f"publishing-{name}-{answered}-{blow.name}".lower()
    log = place.folder / f"{run_id}.log"
    pids: list[int] = []
    struck: list[int] = []

    def strike() -> None:
        struck.append(pids[0])
        os.kill(pids[0], blow)

    def rule(request: Request) -> Fault | None:
        if request.method != "PUT" or key not in request.path or struck:
            return None
        return Fault(after=strike) if answered else Fault(before=strike)

    pids.append(place.start(place.settings(run_id, "dropout"), log))
    place.proxy.rule = rule
    code = place.ended(pids[0], log)
    assert code == (75 if blow == signal.SIGTERM else -9), log.read_text()
    observer = place.observer(run_id)
    observer.look()
    found = read_record(observer.storage)
    assert found is not None
    assert found[0].adapter is None
    assert found[0].status != "succeeded"

    second = place.folder / f"{run_id}-second.log"
    assert place.run(place.settings(run_id, "dropout"), second) == 0, second.read_text()

    observer.look()
    assert observer.violations == []
    found = read_record(observer.storage)
    assert found is not None
    assert found[0].current.from_step == found[0].durable_step == 12
    assert " is durable (" not in second.read_text(), "nothing was trained, nothing saved"
    assert result_of(observer.storage) == expected


def test_a_signal_at_the_final_swap_comes_too_late(
    place: Ground, references: Callable[[str], Reference]
) -> None:
    expected = references("dropout").result
    for moment in ("before", "after"):
        run_id = f"final-swap-{moment}"
        log = place.folder / f"{run_id}.log"
        pids: list[int] = []
        swap = _FinalSwap(pids, moment)
        # No heartbeat swaps the record in between.
        env = place.settings(run_id, "dropout") | {"FORGE_HEARTBEAT_SECONDS": "3600"}
        pids.append(place.start(env, log))
        place.proxy.rule = swap
        assert place.ended(pids[0], log) == 0, log.read_text()
        assert swap.struck
        place.proxy.rule = nothing
        second = place.folder / f"{run_id}-second.log"
        assert place.run(place.settings(run_id, "dropout"), second) == 0, second.read_text()
        observer = place.observer(run_id)
        observer.look()
        assert observer.violations == []
        assert result_of(observer.storage) == expected


class _FinalSwap:
    """A SIGTERM at the swap that follows the report, which is the one that finishes the run."""

    def __init__(self, pids: list[int], moment: str) -> None:
        self._pids = pids
        self._moment = moment
        self._reported = False
        self.struck = False

    def __call__(self, request: Request) -> Fault | None:
        if request.method != "PUT" or self.struck:
            return None
        if self._reported and "/run.json" in request.path:
            return (
                Fault(before=self._strike)
                if self._moment == "before"
                else Fault(after=self._strike)
            )
        self._reported = self._reported or REPORT in request.path
        return None

    def _strike(self) -> None:
        self.struck = True
        os.kill(self._pids[0], signal.SIGTERM)


def test_killed_before_it_is_promoted_the_next_start_promotes_it_once(place: Ground) -> None:
    env = place.settings("unpromoted", "dropout") | {"FORGE_GATE_MIN_GAIN": "-1"}
    log = place.folder / "unpromoted.log"
    pids: list[int] = []

    def rule(request: Request) -> Fault | None:
        strikes = request.method == "PUT" and request.path.partition("?")[0].endswith(PROMOTED_KEY)
        return Fault(before=lambda: os.kill(pids[0], signal.SIGKILL)) if strikes else None

    pids.append(place.start(env, log))
    place.proxy.rule = rule
    assert place.ended(pids[0], log) == -9, log.read_text()
    place.proxy.rule = nothing
    observer = place.observer("unpromoted")
    found = read_record(observer.storage)
    assert found is not None
    assert (found[0].status, found[0].promotion_settled) == ("succeeded", False)
    assert promoted_beside(observer.storage.uri) is None

    for again in ("second", "third"):
        log = place.folder / f"unpromoted-{again}.log"
        assert place.run(env, log) == 0, log.read_text()
        found = read_record(observer.storage)
        assert found is not None
        assert (found[0].attempt, found[0].promotion_settled) == (1, True)
        assert is_named(promoted_beside(observer.storage.uri), "unpromoted") is (again == "second")
        root = open_storage(env["FORGE_OUTPUT_URI"])
        root.delete([PROMOTED_KEY])  # somebody's decision, which stays


def test_a_finished_run_whose_adapter_was_damaged_is_published_anew(
    place: Ground, references: Callable[[str], Reference]
) -> None:
    env = place.settings("damaged-since", "dropout")
    assert place.run(env, place.folder / "damaged-since.log") == 0
    observer = place.observer("damaged-since")
    observer.storage.write("adapter/adapter_model.safetensors", b"somebody's mistake")
    log = place.folder / "damaged-since-second.log"
    assert place.run(env, log) == 0, log.read_text()
    assert "is damaged and is published anew" in log.read_text()
    assert " is durable (" not in log.read_text()
    observer.look()
    assert observer.violations == []
    assert result_of(observer.storage) == references("dropout").result
