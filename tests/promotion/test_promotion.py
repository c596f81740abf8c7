"""`promoted.json`: the newest adapter that passed, whoever else promotes at the same time."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import count, permutations
from typing import Any

import pytest

from job.checkpoint.manifest import MANIFEST_NAME
from job.config import Settings
from job.errors import AccessDenied, JobError, Unavailable
from job.evaluation.intervals import wilson
from job.ledger import RECORD_KEY, Adapter, Attempt, Holder, Ledger, RunRecord, read_record
from job.promotion import (
    PROMOTED_KEY,
    check_promotion,
    is_named,
    promote,
    promote_once,
    promoted_beside,
    read_promoted,
)
from job.promotion.gate import PASSED
from job.storage import Storage, open_storage
from tests.ledger.wrapped import Wrapped
from tests.storage.wire import Answer, Call, Interpose, s3_error


def a_record(
    run_id: str, ended_at: str, gate: str = PASSED, right: int = 9, of: int = 10, **evaluation: Any
) -> RunRecord:
    """A run that got so many of its held-out calls right."""
    holder = Holder(token="t", host="pod")
    low, high = wilson(right, of)
    exact = {"rate": right / of, "low": low, "high": high, "count": right, "of": of}
    judged = {"adapter": {"exact": exact}, "held_out_sha256": "the same"} | evaluation
    return RunRecord(
        run_id=run_id,
        attempt=1,
        status="succeeded",
        adapter=Adapter(key="adapter/", manifest_sha256="0" * 64, bytes=1, step=9),
        results={"gate": gate, "evaluation": judged},
        attempts=[Attempt(number=1, holder=holder, ended_at=ended_at)],
    )


def adapter_of(root: Storage, run_id: str) -> str:
    """As far as promotion looks at one; the run's URI."""
    root.write(f"{run_id}/adapter/{MANIFEST_NAME}", b"{}")
    return f"{root.uri}/{run_id}"


def promoted(root: Storage) -> dict[str, Any]:
    return dict(json.loads(root.read(PROMOTED_KEY)[0]))


def test_serving_finds_the_adapter_its_figures_and_the_one_before(storage: Storage) -> None:
    assert promote(storage, "s3://b/runs/a", a_record("a", "2026-11-26T10:00:00+00:00"))
    assert promote(storage, "s3://b/runs/b", a_record("b", "2026-11-26T11:00:00+00:00"))
    low, high = wilson(9, 10)
    assert promoted(storage) == {
        "run_id": "b",
        "run_uri": "s3://b/runs/b",
        "adapter_uri": "s3://b/runs/b/adapter/",
        "manifest_sha256": "0" * 64,
        "step": 9,
        "ended_at": "2026-11-26T11:00:00+00:00",
        "exact": {"rate": 0.9, "low": low, "high": high, "count": 9, "of": 10},
        "held_out_sha256": "the same",
        "previous": {
            "run_id": "a",
            "run_uri": "s3://b/runs/a",
            "adapter_uri": "s3://b/runs/a/adapter/",
            "manifest_sha256": "0" * 64,
            "step": 9,
            "ended_at": "2026-11-26T10:00:00+00:00",
            "exact": {"rate": 0.9, "low": low, "high": high, "count": 9, "of": 10},
            "held_out_sha256": "the same",
        },
    }


def test_an_older_run_that_is_started_again_changes_nothing(directory: Storage) -> None:
    older, newer = a_record("a", "2026-11-26T10:00:00+00:00"), a_record("b", "2026-11-26T11:00")
    assert promote(directory, "u/b", newer)
    assert not promote(directory, "u/a", older)
    assert not promote(directory, "u/b", newer), "it is there already"
    assert promoted(directory)["run_id"] == "b"


@pytest.mark.parametrize("gate", ["not set", "exactly right 10.0%, FORGE_GATE_MIN_EXACT is 90.0%"])
def test_nothing_is_promoted_without_a_passed_gate(directory: Storage, gate: str) -> None:
    assert not promote(directory, "u/a", a_record("a", "2026-11-26T10:00", gate))
    assert list(directory.list("")) == []


@pytest.mark.parametrize("content", [b"not json", b"[]"])
def test_what_is_not_ours_is_replaced(directory: Storage, content: bytes) -> None:
    directory.write(PROMOTED_KEY, content)
    assert promote(directory, "u/a", a_record("a", "2026-11-26T10:00"))
    assert promoted(directory)["previous"] is None


def test_the_newest_of_many_at_once_stays(bucket: str) -> None:
    def one(number: int) -> bool:
        record = a_record(f"run-{number}", f"2026-11-26T10:00:{number:02}+00:00")
        root = open_storage(f"{bucket}/runs")
        return promote(root, adapter_of(root, record.run_id), record)

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(one, range(6)))
    assert won[-1], "the newest one"
    assert promoted(open_storage(f"{bucket}/runs"))["run_id"] == "run-5"


def test_somebody_who_changes_it_all_the_time_is_an_error(
    directory: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary, others = directory.write, count()

    def overtaken(key: str, data: bytes, **conditions: Any) -> str:
        if key == PROMOTED_KEY:
            ordinary(key, json.dumps({"other": next(others)}).encode())
        return ordinary(key, data, **conditions)

    monkeypatch.setattr(directory, "write", overtaken)
    with pytest.raises(JobError, match=r"changed by other runs 100 times"):
        promote(directory, "u/a", a_record("a", "2026-11-26T10:00"))


def test_the_best_stays_whatever_ends_later(directory: Storage) -> None:
    best = a_record("a", "2026-11-26T10:00", right=9)
    worse = a_record("b", "2026-11-26T11:00", right=8)
    assert promote(directory, "u/a", best, "best")
    assert not promote(directory, "u/b", worse, "best")
    assert promote(directory, "u/c", a_record("c", "2026-11-26T09:00", right=10), "best")
    assert promoted(directory)["run_id"] == "c"
    assert promoted(directory)["previous"]["run_id"] == "a"
    assert promote(directory, "u/b", worse, "newest"), "by the other rule"


def test_of_equals_the_one_that_ended_first_stays(directory: Storage) -> None:
    first, second = (a_record(name, f"2026-11-26T1{name}:00") for name in ("0", "1"))
    assert promote(directory, "u/1", second, "best")
    assert promote(directory, "u/0", first, "best")
    assert not promote(directory, "u/1", second, "best")


@pytest.mark.parametrize(
    "other",
    [
        {"held_out_sha256": "another"},
        {"of": 1000, "right": 999},
    ],
)
def test_what_was_judged_by_other_turns_is_not_better(
    directory: Storage, other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """More turns alone would raise the lower bound."""
    assert promote(directory, "u/a", a_record("a", "2026-11-26T10:00", right=5), "best")
    newer = a_record("b", "2026-11-26T11:00", **other)
    with caplog.at_level("INFO", "job"):
        assert not promote(directory, "u/b", newer, "best")
    assert "which was judged by other held-out turns" in caplog.text
    assert promote(directory, "u/b", newer, "newest"), "begins anew"
    again = a_record("c", "2026-11-26T09:00", **(other | {"right": other.get("of", 10)}))
    assert promote(directory, "u/c", again, "best")


@pytest.mark.parametrize(
    "measure",
    [{"exact": None}, {"exact": {"rate": 1.0}}, {"held_out_sha256": None}, {"exact": "good"}],
)
def test_a_promotion_without_a_measure_loses(directory: Storage, measure: dict[str, Any]) -> None:
    """Such as one that an older release wrote, or somebody by hand."""
    assert promote(directory, "u/a", a_record("a", "2026-11-26T12:00", right=10), "best")
    directory.write(PROMOTED_KEY, json.dumps(promoted(directory) | measure).encode())
    assert promote(directory, "u/b", a_record("b", "2026-11-26T10:00", right=1), "best")


@pytest.mark.parametrize("low", ["NaN", "Infinity", "1e999", "1" + "0" * 400, '"0.9"', "null"])
def test_a_measure_that_is_no_number_loses(directory: Storage, low: str) -> None:
    """Nothing is above NaN, and no float holds the largest of them."""
    by_hand = (
        f'{{"run_id": "a", "exact": {{"low": {low}, "of": 10}}, "held_out_sha256": "the same"}}'
    )
    directory.write(PROMOTED_KEY, by_hand.encode())
    assert promote(directory, "u/b", a_record("b", "2026-11-26T10:00", right=1), "best")
    json.loads(directory.read(PROMOTED_KEY)[0], parse_constant=pytest.fail)


def test_a_run_without_a_measure_never_replaces_one_that_has_one(directory: Storage) -> None:
    unmeasured = a_record("a", "2026-11-26T10:00", held_out_sha256=None)
    assert promote(directory, "u/a", unmeasured, "best"), "there was none"
    assert promote(directory, "u/b", a_record("b", "2026-11-26T09:00", right=1), "best")
    later = a_record("c", "2026-11-26T11:00", held_out_sha256=None)
    assert not promote(directory, "u/c", later, "best")


def test_never_writes_nothing_at_all(directory: Storage) -> None:
    assert not promote(directory, "u/a", a_record("a", "2026-11-26T10:00"), "never")
    assert list(directory.list("")) == []


@pytest.mark.parametrize("rule", ["newest", "best"])
def test_an_adapter_that_was_published_anew_is_named_anew(directory: Storage, rule: Any) -> None:
    promote(directory, "u/0", a_record("0", "2026-11-26T09:00", right=1), rule)
    promote(directory, "u/a", a_record("a", "2026-11-26T10:00", right=9), rule)
    again = a_record("a", "2026-11-26T11:00", right=8)
    assert again.adapter is not None
    again.adapter.manifest_sha256 = "1" * 64
    assert promote(directory, "u/a", again, rule)
    assert promoted(directory)["manifest_sha256"] == "1" * 64
    assert promoted(directory)["previous"]["run_id"] == "0"


def test_the_same_one_stays_in_whatever_order_they_come(directory: Storage) -> None:
    """Measured and not, equal and not: and whoever is started again changes nothing."""
    runs = [
        a_record("a", "2026-11-26T10:00", right=7),
        a_record("b", "2026-11-26T11:00", right=9),
        a_record("c", "2026-11-26T12:00", right=9),
        a_record("d", "2026-11-26T13:00", held_out_sha256=None),
        a_record("e", "2026-11-26T14:00", held_out_sha256=None),
    ]
    for order in list(permutations(runs))[::3]:
        directory.delete([PROMOTED_KEY])
        for record in order:
            promote(directory, f"u/{record.run_id}", record, "best")
        assert promoted(directory)["run_id"] == "b", [record.run_id for record in order]
        assert not [r for r in order if promote(directory, f"u/{r.run_id}", r, "best")]


def test_the_best_of_many_at_once_stays(bucket: str) -> None:
    """Again and again, over the real protocol, in orders that chance makes."""
    scores = list(range(4, 16))
    drawn = random.Random(7)
    with ThreadPoolExecutor(6) as pool:
        for again in range(4):
            root = f"{bucket}/runs-{again}"
            drawn.shuffle(scores)

            def one(right: int, root: str = root) -> bool:
                record = a_record(f"run-{right}", f"2026-11-26T10:{60 - right}", right=right, of=20)
                storage = open_storage(root)
                return promote(storage, adapter_of(storage, record.run_id), record, "best")

            won = dict(zip(scores, pool.map(one, scores), strict=True))
            assert won[15], "the best one"
            found = promoted_beside(f"{root}/run-4")
            assert is_named(found, "run-15")
            assert found == read_promoted(open_storage(root))


# -- whose adapter was deleted --------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["newest", "best"])
def test_a_run_whose_adapter_was_deleted_is_in_nobodys_way(
    storage: Storage, rule: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """`best` would otherwise wait for ever for a better one, and serving with it."""
    before = a_record("before", "2026-11-26T08:00", right=6)
    deleted = a_record("deleted", "2026-11-26T12:00", right=9)
    for record in (before, deleted):
        assert promote(storage, adapter_of(storage, record.run_id), record, rule)
    weaker = a_record("weaker", "2026-11-26T11:00", right=7)
    uri = adapter_of(storage, "weaker")
    assert not promote(storage, uri, weaker, rule)

    storage.delete([info.key for info in storage.list("deleted/")])

    assert promote(storage, uri, weaker, rule)
    assert "names deleted, whose adapter is gone: it counts as nothing" in caplog.text
    found = promoted(storage)
    assert (found["run_id"], found["previous"]["run_id"]) == ("weaker", "before")
    assert not promote(storage, adapter_of(storage, "worst"), before, rule), "this one is there"


@pytest.mark.parametrize("uri", ["s3://elsewhere/runs/a/adapter", "{root}/../a/", None])
def test_one_that_cannot_be_looked_for_stays(directory: Storage, uri: str | None) -> None:
    assert promote(directory, "u/a", a_record("a", "2026-11-26T12:00"))
    named = promoted(directory) | {"adapter_uri": uri and uri.format(root=directory.uri)}
    directory.write(PROMOTED_KEY, json.dumps(named).encode())
    assert not promote(directory, "u/b", a_record("b", "2026-11-26T11:00"))


@pytest.mark.parametrize(("answer", "error"), [(403, None), (503, Unavailable)])
def test_what_is_not_told_of_an_adapter_does_not_replace_it(
    bucket: str, interpose: Interpose, answer: int, error: type[JobError] | None
) -> None:
    """Of its own right a run needs none on another one's folder."""
    root = open_storage(f"{bucket}/runs")
    assert promote(root, adapter_of(root, "a"), a_record("a", "2026-11-26T12:00"))
    root.delete([f"a/adapter/{MANIFEST_NAME}"])

    def refuse(call: Call) -> Answer | None:
        asked = "/a/adapter/" in call.path or "list-type" in call.path
        return s3_error(answer, "AccessDenied" if answer == 403 else "SlowDown") if asked else None

    interpose(refuse)
    with pytest.raises(error) if error else nullcontext():
        root = open_storage(f"{bucket}/runs")
        assert not promote(root, f"{root.uri}/b", a_record("b", "2026-11-26T11:00"))
    assert promoted(root)["run_id"] == "a"


# -- once a run -----------------------------------------------------------------------------------


def ended_run(root: Storage, run_id: str, ended_at: str) -> Storage:
    """A run below `root` whose attempt was killed after its last swap, before it promoted."""
    run = open_storage(adapter_of(root, run_id))
    run.write(RECORD_KEY, a_record(run_id, ended_at).model_dump_json().encode())
    return run


def started_again(root: Storage, run: Storage, rule: Any = "newest") -> None:
    found = read_record(run)
    assert found is not None
    promote_once(root, run, *found, rule)


def settled(run: Storage) -> bool:
    found = read_record(run)
    return found is not None and found[0].promotion_settled


def test_who_goes_back_to_the_one_before_has_the_last_word(storage: Storage) -> None:
    before = ended_run(storage, "run-6", "2026-11-26T10:00")
    bad = ended_run(storage, "run-7", "2026-11-26T11:00")
    for run in (before, bad):
        started_again(storage, run)
    found = promoted(storage)
    assert (found["run_id"], settled(before), settled(bad)) == ("run-7", True, True)

    storage.write(PROMOTED_KEY, json.dumps(found["previous"]).encode())
    for run in (bad, before):
        started_again(storage, run)
    assert promoted(storage) == found["previous"]

    assert promote(storage, "u/8", a_record("run-8", "2026-11-26T12:00"), "best") is False
    assert promote(storage, "u/8", a_record("run-8", "2026-11-26T12:00", right=10), "best")


def test_what_is_put_back_by_hand_with_less_in_it_loses_to_the_next_run(
    directory: Storage,
) -> None:
    directory.write(PROMOTED_KEY, b'{"run_id": "run-6", "ended_at": null}')
    assert promote(directory, "u/8", a_record("run-8", "2026-11-26T12:00"))


@pytest.mark.parametrize("rule", ["never", "newest"])
def test_where_nothing_is_to_be_promoted_nothing_is_settled(directory: Storage, rule: Any) -> None:
    """Another rule may still be given."""
    run = open_storage(f"{directory.uri}/a")
    gate = PASSED if rule == "never" else "not set"
    run.write(RECORD_KEY, a_record("a", "2026-11-26T10:00", gate).model_dump_json().encode())
    started_again(directory, run, rule)
    assert [info.key for info in directory.list()] == ["a/run.json"]
    assert not settled(run)


@pytest.mark.parametrize("ignores_conditions", [False, True])
def test_a_run_that_was_taken_up_meanwhile_is_left_alone(
    directory: Storage, ignores_conditions: bool
) -> None:
    """Such as to publish it anew: the record is its new holder's."""
    run = Wrapped(
        ended_run(directory, "a", "2026-11-26T10:00"), ignores_conditions=ignores_conditions
    )
    found = read_record(run)
    assert found is not None
    Ledger.claim(run, "a", version="newer", conditional_writes=not ignores_conditions)
    promote_once(directory, run, *found, "newest")
    now = read_record(run)
    assert now is not None
    assert (now[0].attempt, now[0].status) == (2, "running")
    assert not now[0].promotion_settled


def test_a_store_without_conditions_is_settled_too(directory: Storage) -> None:
    run = Wrapped(ended_run(directory, "a", "2026-11-26T10:00"), ignores_conditions=True)
    started_again(directory, run)
    assert settled(run)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"gate_min_exact": 0.5}, True),
        ({"gate_min_exact": 0.5, "promote": "never"}, False),
        ({}, False),
    ],
)
def test_rights_for_the_root_are_tried_before_any_training(
    bucket: str, interpose: Interpose, changes: dict[str, Any], refused: bool
) -> None:
    """A role that may write below one run's prefix alone."""

    def only_the_run(call: Call) -> Answer | None:
        allowed = call.method != "PUT" or "/out/run-1/" in call.path
        return None if allowed else s3_error(403, "AccessDenied")

    interpose(only_the_run)
    uri = f"{bucket}/out"
    settings = Settings(run_id="run-1", dataset_uri="/rows", output_uri=uri, **changes)
    with pytest.raises(AccessDenied) if refused else nullcontext():
        check_promotion(settings)
