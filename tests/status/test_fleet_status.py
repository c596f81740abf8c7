"""`status --all`: what it says of many runs, and what it asks the store for."""

from __future__ import annotations

import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from job.__main__ import main
from job.errors import SettingsError, Unavailable
from job.ledger import Attempt, Holder, Progress, RunRecord, Status
from job.status.all_runs import fleet_status
from job.status.records import scan
from job.status.table import Selection
from job.storage import Storage, open_storage
from job.storage.s3 import S3Storage
from tests.storage.wire import Answer, Call, Interpose, s3_error


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def a_record(run_id: str, status: Status = "running", **more: Any) -> RunRecord:
    attempt = Attempt(number=1, holder=Holder(token="t"), started_at=ago(7200), reason="so it was")
    if status != "running":
        attempt.ended_at = ago(3600)
    fields: dict[str, Any] = {
        "attempt": 1,
        "updated_at": ago(5),
        "progress": Progress(step=30, max_steps=120, loss=1.5),
        "settings": {"learning_rate": 2e-4, "lora_r": 16, "hf_token": "never shown"},
        "attempts": [attempt],
    }
    return RunRecord(run_id=run_id, status=status, **(fields | more))


def store(storage: Storage, record: RunRecord) -> None:
    storage.write(f"{record.run_id}/run.json", record.model_dump_json().encode())


def exact(rate: float) -> dict[str, Any]:
    return {"evaluation": {"adapter": {"exact": {"rate": rate}}}, "gate": "passed"}


def shown(storage: Storage, **wanted: str) -> list[str]:
    out = io.StringIO()
    chosen = {"statuses": "", "sort": "status", "columns": ""} | wanted
    fleet_status(storage.uri, Selection.of(**chosen), as_json=False, out=out)
    return out.getvalue().splitlines()


def test_a_request_a_run_and_one_a_page_of_folders(bucket: str, interpose: Interpose) -> None:
    storage = open_storage(f"{bucket}/runs")

    def one(number: int) -> None:
        store(storage, a_record(f"run-{number:03}"))
        if not number % 10:  # what must not be gone through
            storage.write(f"run-{number:03}/checkpoints/00000050-001/manifest.json", b"{}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(250)))
    calls = Counter[str]()

    def count(call: Call) -> None:
        calls.update([_kind(call)])
        if "list-type" in call.path:
            call.path += "&max-keys=100"

    interpose(count)

    rows = list(scan(open_storage(f"{bucket}/runs")))

    assert [row.run_id for row in rows if row] == [f"run-{number:03}" for number in range(250)]
    assert calls == {"list": 3, "record": 250}


def _kind(call: Call) -> str:
    if "list-type" in call.path:
        return "list"
    return "record" if call.method == "GET" and call.path.endswith("/run.json") else call.path


def test_running_first_then_what_needs_somebody(storage: Storage) -> None:
    store(storage, a_record("a", "succeeded", results=exact(0.5)))
    store(storage, a_record("b", "failed"))
    store(storage, a_record("c"))
    storage.write("d/run.json", b"no json")
    storage.write("promoted.json", b"{}")
    storage.write("not-a-run/x", b"")

    lines = shown(storage)

    assert [line.split()[:2] for line in lines[1:5]] == [
        ["c", "running"],
        ["d", "unreadable"],
        ["b", "failed"],
        ["a", "succeeded"],
    ]
    assert "is not a record of a run" in lines[2]
    assert "30/120" in lines[3]
    assert "so it was" in lines[3]
    assert "50.0%" in lines[4]
    assert lines[-1] == (
        "4 runs: 1 running, 1 unreadable, 1 failed, 1 succeeded; 4.0 GPU hours"
        "; 1 other folders hold no run"
    )


def test_a_sweep_is_one_table_the_best_first(directory: Storage) -> None:
    for name, rate, learning_rate in (("x", 0.4, 1e-4), ("y", 0.9, 2e-4), ("z", 0.7, 5e-4)):
        settings = {"learning_rate": learning_rate, "lora_r": None}
        record = a_record(name, "succeeded", results=exact(rate), settings=settings)
        store(directory, record)
    store(directory, a_record("unscored", "failed"))
    directory.write("promoted.json", b'{"run_id": "z"}')

    lines = shown(directory, sort="exact", columns="learning_rate,lora_r")

    assert "LEARNING_RATE  LORA_R" in lines[0]
    assert [line.split()[0] for line in lines[1:5]] == ["y", "z", "x", "unscored"]
    assert lines[1].split()[5:7] == ["0.0002", "–"]
    assert [line.split()[-1] == "promoted" for line in lines[1:4]] == [False, True, False]


def test_a_setting_that_was_left_to_the_profile_has_its_value(directory: Storage) -> None:
    """Half of a sweep says so by giving nothing."""
    for name, given in (("x", {"lora_r": 32}), ("y", {"lora_r": None, "num_train_epochs": 2.0})):
        settings = {"profile": "fast_dev", "dataset_uri": ["s3://b/x/", "s3://b/y/"], **given}
        store(directory, a_record(name, "succeeded", settings=settings))
    lines = shown(directory, sort="run_id", columns="lora_r,learning_rate,max_steps,dataset_uri")
    assert [line.split()[5:9] for line in lines[1:3]] == [
        ["32", "0.0002", "60", "s3://b/x/,s3://b/y/"],
        ["8", "0.0002", "-1", "s3://b/x/,s3://b/y/"],
    ]


def test_for_machines_a_line_of_json_a_run(
    directory: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    store(directory, a_record("a", "succeeded", results=exact(0.5)))
    store(directory, a_record("b", "failed"))

    arguments = ["status", directory.uri, "--all", "--json", "--columns", "lora_r"]
    assert main([*arguments, "--status", "failed,running"]) == 0

    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["run_id"], row["status"], row["settings"]) == ("b", "failed", {"lora_r": 16})
    assert row["gpu_hours"] == pytest.approx(1, rel=0.01)


def test_hours_are_those_of_the_gpus_that_each_attempt_had(directory: Storage) -> None:
    record = a_record("a", "succeeded", fingerprint={"world_size": 1}, attempt=2)
    first, second = record.current, record.current.model_copy(deep=True)
    first.processes, second.number, second.processes = 8, 2, 1
    record.attempts.append(second)
    store(directory, record)
    (row,) = scan(directory)
    assert row is not None
    assert row.gpu_hours == pytest.approx(9, rel=0.01)


def test_a_run_on_a_cpu_has_no_gpu_hours(directory: Storage) -> None:
    store(directory, a_record("a", "succeeded", model={"device": "cpu"}))
    (row,) = scan(directory)
    assert row is not None
    assert row.gpu_hours == 0


def test_a_run_without_a_heartbeat_is_told(directory: Storage) -> None:
    store(directory, a_record("a", updated_at=ago(91)))
    store(directory, a_record("b", updated_at=ago(80)))
    lines = shown(directory)
    assert "no heartbeat" in lines[1]
    assert "no heartbeat" not in lines[2]
    assert lines[-1].endswith("; 1 running without a heartbeat")


@pytest.mark.parametrize(
    "broken",
    [
        {"updated_at": "yesterday"},
        {"results": {"evaluation": [1]}},
        {"results": {"evaluation": {"adapter": {"exact": {"rate": "good"}}}}},
        {"settings": {"heartbeat_seconds": "often"}},
    ],
)
def test_a_record_that_only_looks_like_one_is_a_row_and_no_crash(
    directory: Storage, broken: dict[str, Any]
) -> None:
    store(directory, a_record("a"))
    store(directory, a_record("b", **broken))
    assert [line.split()[1] for line in shown(directory)[1:3]] == ["running", "unreadable"]


def test_names_from_storage_cannot_write_on_the_terminal(directory: Storage) -> None:
    store(directory, a_record("a\x1b[2J", "failed"))
    assert "\x1b" not in "\n".join(shown(directory))


def test_a_reason_of_several_lines_is_one(directory: Storage) -> None:
    record = a_record("a", "failed")
    record.current.reason = "2 problems:\n  - a: b\n  - c: d"
    store(directory, record)
    assert shown(directory)[1].endswith("2 problems: - a: b - c: d")


def test_no_run_at_all_is_exit_78(directory: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    directory.write("something/else", b"")
    assert main(["status", directory.uri, "--all"]) == 78
    assert "there are no runs here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"statuses": "runing"}, r"did you mean running\?"),
        ({"sort": "exakt"}, r"did you mean exact\?"),
        ({"columns": "learning_rat"}, r"did you mean learning_rate\?"),
    ],
)
def test_unknown_names_are_refused(directory: Storage, wanted: dict[str, str], told: str) -> None:
    store(directory, a_record("a"))
    with pytest.raises(SettingsError, match=told):
        shown(directory, **wanted)


@pytest.mark.parametrize("more", [["--sort", "exact"], ["--all", "--watch"]])
def test_options_that_do_not_go_together(directory: Storage, more: list[str]) -> None:
    assert main(["status", directory.uri, *more]) == 78


def test_a_record_that_is_refused_is_one_row(bucket: str, interpose: Interpose) -> None:
    def refuse(call: Call) -> Answer | None:
        return s3_error(403, "AccessDenied") if call.path.endswith("/b/run.json") else None

    for name in ("a", "b"):
        store(open_storage(f"{bucket}/runs"), a_record(name))
    interpose(refuse)
    lines = shown(open_storage(f"{bucket}/runs"))
    assert [line.split()[:2] for line in lines[1:3]] == [["a", "running"], ["b", "unreadable"]]


def test_an_outage_is_no_shorter_table(
    bucket: str, interpose: Interpose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.status.records.PATIENCE_SECONDS", 0.0)
    for name in ("a", "b"):
        store(open_storage(f"{bucket}/runs"), a_record(name))
    interpose(lambda call: s3_error(503, "SlowDown") if "/b/" in call.path else None)
    with pytest.raises(Unavailable):
        shown(open_storage(f"{bucket}/runs"))


def test_only_the_runs_of_one_sweep(directory: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("sweep-1-a", "sweep-1-b", "sweep-2-a"):
        store(directory, a_record(name))
    arguments = ["status", directory.uri, "--all", "--json", "--prefix"]
    assert main([*arguments, "sweep-1-"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["run_id"] for row in rows] == ["sweep-1-a", "sweep-1-b"]
    assert main([*arguments, "sweep-3-"]) == 78
    assert "there are no runs sweep-3-… here" in capsys.readouterr().err


# -- which run is promoted ------------------------------------------------------------------------


def test_a_promoted_run_that_is_gone_is_told(
    directory: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    store(directory, a_record("a"))
    store(directory, a_record("b"))
    directory.write("promoted.json", b'{"run_id": "a-gone"}')
    told = "promoted.json names a-gone, which is not here"
    assert shown(directory)[-1] == told
    assert main(["status", directory.uri, "--all", "--json"]) == 0
    printed = capsys.readouterr()
    assert (len(printed.out.splitlines()), printed.err.strip()) == (2, told)
    for options, expected in (
        (["--prefix", "a"], True),
        (["--prefix", "b"], False),
        (["--run-ids", "a,a-gone"], True),
        (["--run-ids", "a"], False),
    ):
        assert main(["status", directory.uri, "--all", *options]) == 0
        assert (told in capsys.readouterr().out) is expected, options
    store(directory, a_record("a-gone"))
    assert told not in shown(directory)


def test_a_promoted_run_that_cannot_be_read_says_why(directory: Storage) -> None:
    directory.write("a/run.json", b"no json")
    directory.write("promoted.json", b'{"run_id": "a"}')
    [line] = [line for line in shown(directory) if line.startswith("a ")]
    assert "promoted; is not a record of a run" in line


def test_which_run_is_promoted_may_not_be_known(
    bucket: str, interpose: Interpose, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(call: Call) -> Answer | None:
        refused = call.path.endswith("/promoted.json")
        return s3_error(403, "AccessDenied") if refused else None

    store(open_storage(f"{bucket}/runs"), a_record("a"))
    interpose(refuse)
    told = "which run is promoted is not known: "
    assert shown(open_storage(f"{bucket}/runs"))[-1].startswith(told)
    assert main(["status", f"{bucket}/runs", "--all", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["promoted"] is None
    assert told in printed.err


def test_a_folder_with_the_name_of_none_is_no_row(bucket: str) -> None:
    """What a tool wrote with a slash too many, or a path that it did not resolve."""
    root = open_storage(bucket)
    assert isinstance(root, S3Storage)
    store(open_storage(f"{bucket}/runs"), a_record("a"))
    for key in ("runs//run.json", "runs//x", "runs/../run.json", "runs/./run.json"):
        root.client.put_object(Bucket=root.name, Key=root.prefix + key, Body=b"{}")
    lines = shown(open_storage(f"{bucket}/runs"))
    assert [line.split()[0] for line in lines[1:-2]] == ["a"]
    assert lines[-1].endswith("; 3 other folders hold no run")
