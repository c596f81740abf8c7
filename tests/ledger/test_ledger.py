"""Who owns the run, and what is true of it, on both backends and with answers that get lost."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job.errors import Fenced, JobError
from job.ledger import (
    RECORD_KEY,
    Holder,
    Ledger,
    Progress,
    RunRecord,
    Status,
    read_record,
)
from job.storage import Conflict, Storage, open_storage
from tests.ledger.claimed import claim, commit, steps, stored
from tests.ledger.wrapped import Failing, Wrapped

# -- claiming -------------------------------------------------------------------------------------


def test_a_run_that_never_began_has_no_record(storage: Storage) -> None:
    assert read_record(storage) is None


def test_the_first_claim(storage: Storage) -> None:
    ledger = claim(storage)
    record = stored(storage)
    assert record == ledger.record
    assert (record.run_id, record.status, record.attempt) == ("run-1", "running", 1)
    assert record.conditional_writes is True
    assert record.holder == record.current.holder
    assert record.holder is not None
    assert record.holder.version == "1.2.3"
    assert (record.current.number, record.current.from_step, record.current.lost_steps) == (1, 0, 0)


def test_an_attempt_says_how_many_work_on_it(directory: Storage) -> None:
    claim(directory)
    Ledger.claim(directory, "run-1", version="2", conditional_writes=True, processes=4)
    record = stored(directory)
    assert [attempt.processes for attempt in record.attempts] == [None, 4]
    assert record.processes == 4
    assert record.processes_of(record.attempts[0]) == 1, "of an earlier release it was one"


def test_a_claim_after_a_kill_takes_over_at_the_last_durable_step(storage: Storage) -> None:
    first = claim(storage)
    commit(first, 25)
    commit(first, 50)
    first.heartbeat(Progress(phase="training", step=57, max_steps=100, loss=1.0, eval_loss=0.5))
    last_heartbeat = stored(storage).updated_at

    second = claim(storage)

    record = stored(storage)
    assert (second.attempt, record.attempt, len(record.attempts)) == (2, 2, 2)
    killed, current = record.attempts
    assert (killed.exit_code, killed.ended_at, killed.to_step) == (None, None, 50)
    assert killed.last_seen_at == last_heartbeat
    assert current.last_seen_at is None
    assert (current.number, current.from_step, current.to_step) == (2, 50, 50)
    assert (current.lost_steps, current.lost_at_least) == (7, True)
    progress = record.progress
    assert (progress.phase, progress.step, progress.max_steps) == ("starting", 50, 100)
    assert (progress.loss, progress.eval_loss) == (None, 0.5)
    assert steps(record) == [25, 50]


def test_a_claim_before_training_began_again_loses_nothing_more(storage: Storage) -> None:
    first = claim(storage)
    commit(first, 50)
    first.heartbeat(Progress(step=57))
    claim(storage)
    third = claim(storage)
    assert [attempt.lost_steps for attempt in third.record.attempts] == [0, 7, 0]


@pytest.mark.parametrize(
    ("phase", "closed", "at_least"),
    [
        ("training", False, True),
        ("model", False, True),  # a heartbeat ago
        ("evaluation", False, False),
        ("publishing", False, False),
        ("training", True, False),
    ],
)
def test_steps_after_the_last_heartbeat_of_a_killed_attempt_are_not_none(
    directory: Storage, phase: str, closed: bool, at_least: bool
) -> None:
    first, progress = claim(directory), Progress(phase=phase, step=50, max_steps=100)
    commit(first, 50)
    first.heartbeat(progress)
    if closed:
        first.close("preempted", 75, "SIGTERM", progress)
    current = claim(directory).record.current
    assert (current.lost_steps, current.lost_at_least) == (0, at_least)


def test_a_claim_keeps_the_losses_up_to_the_last_durable_step(storage: Storage) -> None:
    first = claim(storage)
    commit(first, 20)
    first.heartbeat(Progress(step=30, losses=[(10, 2.0), (20, 1.5), (30, 1.2)]))
    assert claim(storage).record.progress.losses == [(10, 2.0), (20, 1.5)]


def test_a_run_that_is_finished_meanwhile_stays_so(storage: Storage) -> None:
    claim(storage).close("succeeded", 0, "finished")
    before = storage.read(RECORD_KEY)
    with pytest.raises(Fenced, match="attempt 1 has just finished"):
        Ledger.claim(storage, "run-1", version="1", conditional_writes=True, reopens=False)
    assert storage.read(RECORD_KEY) == before
    reopened = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    assert (reopened.attempt, reopened.record.status) == (2, "running")


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 81)])
def test_the_first_word_about_an_end_stays(storage: Storage, status: Status, code: int) -> None:
    ledger = claim(storage)
    ledger.close(status, code, "as it was")
    ledger.close("preempted", 75, "and could not end in time")
    record = stored(storage)
    assert (record.status, record.current.exit_code) == (status, code)
    assert record.current.reason == "as it was"


def test_an_end_whose_answer_was_lost_is_not_said_otherwise(storage: Storage) -> None:
    """The swap was carried out, and neither its answer nor another look came through."""
    ledger = claim(storage)
    behind = Ledger(storage, ledger.record.model_copy(deep=True), *_unknowing(storage))
    ledger.close("succeeded", 0, "finished")
    behind.close("preempted", 75, "received SIGTERM")
    assert stored(storage).status == "succeeded"


def _unknowing(storage: Storage) -> tuple[str, Holder]:
    """The ETag and the holder of what is stored: an attempt as it was before its last swap."""
    found = read_record(storage)
    assert found is not None
    assert found[0].holder is not None
    return found[1], found[0].holder


def test_a_claim_leaves_what_an_ended_attempt_said_of_itself(storage: Storage) -> None:
    first = claim(storage)
    commit(first, 50)
    first.close("preempted", 75, "received SIGTERM")
    said = stored(storage).attempts[0]
    second = claim(storage)
    assert second.record.attempts[0] == said
    assert second.record.status == "running"


def test_claims_at_once_end_with_attempts_of_their_own(storage: Storage) -> None:
    together = threading.Barrier(4)

    def start() -> Ledger:
        own = open_storage(storage.uri)
        together.wait()
        return claim(own)

    with ThreadPoolExecutor(4) as pool:
        ledgers = [future.result() for future in [pool.submit(start) for _ in range(4)]]

    assert sorted(ledger.attempt for ledger in ledgers) == [1, 2, 3, 4]
    record = stored(storage)
    assert [attempt.number for attempt in record.attempts] == [1, 2, 3, 4]
    for ledger in sorted(ledgers, key=lambda ledger: ledger.attempt)[:-1]:
        with pytest.raises(Fenced, match="attempt 4 now owns"):
            ledger.heartbeat(Progress(step=9))
    max(ledgers, key=lambda ledger: ledger.attempt).heartbeat(Progress(step=9))


def test_a_claim_whose_answer_was_lost_counts_once(storage: Storage) -> None:
    wrapped = Wrapped(storage, after=Failing("write", RECORD_KEY, Conflict()))
    ledger = claim(wrapped)
    assert ledger.attempt == 1
    assert [attempt.number for attempt in stored(storage).attempts] == [1]
    ledger.heartbeat(Progress(step=1))
    assert stored(storage).progress.step == 1


def test_a_claim_that_never_wins_says_so(directory: Storage) -> None:
    wrapped = Wrapped(directory, before=Failing("write", RECORD_KEY, *[Conflict()] * 100))
    with pytest.raises(JobError, match="is it started twice") as caught:
        claim(wrapped)
    assert caught.value.exit_code == 70
    assert read_record(directory) is None


# -- fencing --------------------------------------------------------------------------------------


def test_the_older_attempt_is_fenced_for_good_and_writes_nothing_more(storage: Storage) -> None:
    wrapped = Wrapped(storage)
    older = claim(wrapped)
    newer = claim(storage)
    before = storage.read(RECORD_KEY)

    older.check_not_fenced()  # it can't know yet, and asks nobody
    wrapped.calls.clear()
    with pytest.raises(Fenced, match=r"attempt 2 now owns .*run-1"):
        older.heartbeat(Progress(step=5))
    with pytest.raises(Fenced):
        older.close("failed", 70, "boom")
    with pytest.raises(Fenced):
        older.set_fields(status="succeeded")
    with pytest.raises(Fenced):
        older.check_not_fenced()

    assert storage.read(RECORD_KEY) == before
    assert [call for call in wrapped.calls if call[0] != "read"] == []
    assert (older.attempt, newer.attempt) == (1, 2)
    assert older.record.attempt == 1, "its last write, not somebody else's"


def test_fenced_stays_fenced_when_the_record_looks_like_ours_again(directory: Storage) -> None:
    older = claim(directory)
    ours, _ = directory.read(RECORD_KEY)
    claim(directory)
    with pytest.raises(Fenced):
        older.heartbeat(Progress(step=1))
    directory.write(RECORD_KEY, ours)
    with pytest.raises(Fenced):
        older.heartbeat(Progress(step=1))


# -- records of others ----------------------------------------------------------------------------


def test_what_a_newer_release_wrote_stays(storage: Storage) -> None:
    record = RunRecord(run_id="run-1", attempt=1, holder=Holder(token="t")).model_dump(mode="json")
    record |= {"schema_version": 2, "shards": {"0": ["a"]}}
    record["attempts"] = [{"number": 1, "holder": {"token": "t", "zone": "eu-1"}, "node": "n7"}]
    record["checkpoints"] = [
        {"step": 5, "attempt": 1, "key": "k/", "manifest_sha256": "0", "bytes": 1, "codec": "zstd"}
    ]
    storage.write(RECORD_KEY, json.dumps(record).encode())

    ledger = claim(storage)
    ledger.heartbeat(Progress(step=6))
    ledger.close("failed", 70, "boom")

    now = json.loads(storage.read(RECORD_KEY)[0])
    assert (now["schema_version"], now["shards"]) == (2, {"0": ["a"]})
    assert (now["attempts"][0]["node"], now["attempts"][0]["holder"]["zone"]) == ("n7", "eu-1")
    assert now["checkpoints"][0]["codec"] == "zstd"
    assert (now["attempt"], now["attempts"][1]["exit_code"]) == (2, 70)


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b'{"status": "running"}',
    b'{"run_id": "r", "attempt": "x"}',
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_named_and_left_alone(storage: Storage, garbage: bytes) -> None:
    storage.write(RECORD_KEY, garbage)
    with pytest.raises(JobError, match="is not a record of a run") as caught:
        claim(storage)
    assert caught.value.exit_code == 70
    assert f"{storage.uri}/{RECORD_KEY}" in str(caught.value)
    assert "FORGE_RUN_ID" in str(caught.value)
    assert storage.read(RECORD_KEY)[0] == garbage


def test_a_record_that_is_spoilt_while_the_run_goes_on(storage: Storage) -> None:
    ledger = claim(storage)
    storage.write(RECORD_KEY, b"{")
    with pytest.raises(JobError, match=r"run\.json: is not a record of a run"):
        ledger.heartbeat(Progress(step=1))
    assert storage.read(RECORD_KEY)[0] == b"{"


def test_a_record_that_is_deleted_while_the_run_goes_on(storage: Storage) -> None:
    ledger = claim(storage)
    storage.delete([RECORD_KEY])
    with pytest.raises(JobError, match=r"run\.json: was deleted"):
        ledger.heartbeat(Progress(step=1))
    assert read_record(storage) is None


def test_numbers_that_json_has_not_keep_the_record_readable(directory: Storage) -> None:
    ledger = claim(directory)
    nan, infinity = float("nan"), float("inf")
    ledger.heartbeat(Progress(loss=nan, eval_loss=infinity, eta_seconds=-infinity))
    ledger.set_fields(settings={"storage_patience_seconds": infinity}, results={"gain": [nan]})
    progress = stored(directory).progress
    assert (progress.loss, progress.eval_loss, progress.eta_seconds) == (None, None, None)
    json.loads(directory.read(RECORD_KEY)[0], parse_constant=pytest.fail)


# -- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"), [("preempted", 75), ("failed", 81), ("succeeded", 0), ("gate_failed", 80)]
)
def test_closing_says_how_it_ended(storage: Storage, status: Status, code: int) -> None:
    ledger = claim(storage)
    commit(ledger, 50)
    ledger.close(status, code, "because", Progress(step=57, phase="failed"))
    record = stored(storage)
    ended = record.current
    assert (record.status, ended.exit_code, ended.reason) == (status, code, "because")
    assert (ended.from_step, ended.to_step, record.progress.step) == (0, 50, 57)
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.started_at


def test_an_attempt_without_a_checkpoint_of_its_own_gets_nowhere(directory: Storage) -> None:
    first = claim(directory)
    commit(first, 50)
    second = claim(directory)
    second.close("failed", 70, "boom")
    assert (second.record.current.from_step, second.record.current.to_step) == (50, 50)


def test_the_record_is_for_people_too(tmp_path: Path, directory: Storage) -> None:
    claim(directory)
    text = (tmp_path / "out" / "run-1" / RECORD_KEY).read_text()
    assert '\n "run_id": "run-1",\n' in text
