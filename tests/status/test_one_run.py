"""`status` on records in a directory and on a real S3 server, on a terminal and off it."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from job.errors import JobError, SettingsError, Unavailable
from job.ledger import RECORD_KEY, Adapter, Attempt, Checkpoint, Holder, Progress, RunRecord, Status
from job.status import describe, sparkline, status
from job.storage import open_storage
from tests.storage.wire import Answer, Call, Interpose, s3_error

URI = "s3://bucket/out/run-1"
ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def ago(**units: float) -> str:
    return (NOW - timedelta(**units)).isoformat()


def a_record() -> RunRecord:
    holder = Holder(token="t", host="pod-1")
    return RunRecord(
        run_id="run-1",
        attempt=2,
        updated_at=ago(seconds=20),
        settings={"heartbeat_seconds": 30.0},
        progress=Progress(
            phase="training",
            step=30,
            max_steps=120,
            loss=1.23456,
            eval_loss=1.5,
            eta_seconds=3720,
        ),
        checkpoints=[
            Checkpoint(
                step=25,
                attempt=1,
                key="checkpoints/00000025-001/",
                manifest_sha256="0" * 64,
                bytes=12_340_000,
                committed_at=ago(seconds=90),
            )
        ],
        attempts=[
            Attempt(
                number=1,
                holder=holder,
                ended_at=ago(minutes=5),
                to_step=25,
                exit_code=75,
                reason="received SIGTERM",
            ),
            Attempt(number=2, holder=holder, from_step=25, to_step=25),
        ],
    )


def store(uri: str, record: RunRecord) -> None:
    open_storage(uri).write("run.json", record.model_dump_json().encode())


def test_a_running_run_at_a_glance() -> None:
    assert describe(a_record(), URI, NOW).splitlines() == [
        "run         run-1",
        "status      running (training)",
        "progress    [########----------------------] 30/120 (25%)",
        "loss        1.2346, validation 1.5000",
        "ETA         1 h 2 min",
        "durable     step 25, 1 min 30 s ago (12.3 MB)",
        "adapter     not yet",
        "attempt 1   from step 0 to 25, exit 75: received SIGTERM",
        "attempt 2   from step 25, running",
    ]


def test_a_run_that_has_just_begun() -> None:
    text = describe(RunRecord(run_id="run-1", progress=Progress()), URI, NOW)
    assert "status      running (starting)\n" in text
    assert "progress    step 0\n" in text
    assert "no checkpoint yet" in text


@pytest.mark.parametrize(("seconds", "silent"), [(89, False), (91, True), (-600, False)])
def test_a_silent_heartbeat_is_said(seconds: int, silent: bool) -> None:
    record = a_record()
    record.updated_at = ago(seconds=seconds)
    assert ("the pod may be gone" in describe(record, URI, NOW)) is silent


def test_a_finished_run_has_no_silent_heartbeat_and_names_its_adapter() -> None:
    record = a_record()
    record.status = "succeeded"
    record.updated_at = ago(days=3)
    record.adapter = Adapter(key="adapter/", manifest_sha256="0" * 64, bytes=5, step=120)
    text = describe(record, URI, NOW)
    assert "status      succeeded\n" in text
    assert "adapter     s3://bucket/out/run-1/adapter/\n" in text


def test_an_attempt_that_was_killed_is_said_to_be() -> None:
    record = a_record()
    record.attempts[0].exit_code = None
    assert "attempt 1   from step 0, was killed" in describe(record, URI, NOW)


def test_what_a_record_holds_can_not_move_the_cursor() -> None:
    record = a_record()
    record.attempts[0].reason = "evil \x1b[2J\r http://u:secret@h"
    text = describe(record, URI, NOW)
    assert "\\x1b[2J\\x0d" in text
    assert "secret" not in text


def test_a_reason_of_several_lines_is_one() -> None:
    record = a_record()
    record.attempts[0].reason = "2 problems:\n  - a: b\r\n  - c: d"
    lines = describe(record, URI, NOW).splitlines()
    assert any(line.endswith("exit 75: 2 problems: - a: b - c: d") for line in lines)


def test_status_of_a_run_on_s3(bucket: str) -> None:
    store(f"{bucket}/out/run-1", a_record())
    out = io.StringIO()
    assert status(f"{bucket}/out/run-1", out=out) == 0
    assert "30/120 (25%)" in out.getvalue()


@pytest.mark.parametrize("joint", ["//", "///"])
def test_an_output_that_ends_in_a_slash_is_joined_all_the_same(joint: str, bucket: str) -> None:
    """As workflows join the two; the run itself takes the slash off its output."""
    store(f"{bucket}/out/run-1", a_record())
    out = io.StringIO()
    assert status(f"{bucket}/out{joint}run-1/", out=out) == 0
    assert "30/120 (25%)" in out.getvalue()


def test_a_uri_without_a_bucket_gets_none() -> None:
    with pytest.raises(SettingsError, match="has no bucket"):
        status("s3:///run-1", out=io.StringIO())


def test_json_is_the_record(tmp_path: Path) -> None:
    record = a_record()
    record.progress.loss = float("nan")
    store(str(tmp_path), record)
    out = io.StringIO()
    assert status(str(tmp_path), as_json=True, out=out) == 0
    found = json.loads(out.getvalue(), parse_constant=pytest.fail)
    assert (found["run_id"], found["progress"]["loss"]) == ("run-1", None)


def test_no_run_names_the_uri(bucket: str) -> None:
    with pytest.raises(SettingsError, match=f"{bucket}/nothing: there is no run here"):
        status(f"{bucket}/nothing", out=io.StringIO())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"run_id": 1}'])
def test_a_damaged_record_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(JobError, match=r"run\.json"):
        status(str(tmp_path), out=io.StringIO())


def test_watch_ends_with_the_run_and_prints_changes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(str(tmp_path), a_record())
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            record = a_record()
            record.status = "succeeded"
            store(str(tmp_path), record)

    monkeypatch.setattr("job.status.one_run.time.sleep", pause)
    out = io.StringIO()
    assert status(str(tmp_path), as_json=True, watch=True, out=out, interval_seconds=0.02) == 0
    shown = [json.loads(line)["status"] for line in out.getvalue().splitlines()]
    assert (shown, pauses) == (["running", "succeeded"], [0.02] * 3)


@pytest.mark.parametrize(
    ("state", "code", "over"),
    [
        ("failed", 69, False),  # the Job starts the next attempt, as after a preemption
        ("failed", 70, False),
        ("preempted", 75, False),
        ("failed", 65, True),
        ("gate_failed", 80, True),
    ],
)
def test_watch_goes_on_while_an_attempt_may_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Status, code: int, over: bool
) -> None:
    record = a_record()
    record.status, record.current.exit_code = state, code
    store(str(tmp_path), record)
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        record.status = "succeeded"
        store(str(tmp_path), record)

    monkeypatch.setattr("job.status.one_run.time.sleep", look)
    assert status(str(tmp_path), as_json=True, watch=True, out=io.StringIO()) == 0
    assert bool(looks) is not over


def test_watch_on_a_terminal_redraws_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    store(str(tmp_path), a_record())
    code = (
        "import signal, sys\nfrom job.status import status\n"
        # A shell starts what it puts in the background, as maybe this test, with Ctrl-C ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(status({str(tmp_path)!r}, watch=True, interval_seconds=0.05))"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    record = a_record()
    while b"\x1b[9F\x1b[J" not in shown:
        shown += os.read(ours, 4096)
        record.progress.step += 1
        store(str(tmp_path), record)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    assert errors == b""


CURVE = [(step, 9.0 - step / 10) for step in range(0, 60, 2)]


def on_a_terminal(record: RunRecord, rows: int, columns: int, **env: str) -> str:
    """What `status --watch` writes to a terminal of that size for a run that is over."""
    with tempfile.TemporaryDirectory() as folder:
        store(folder, record)
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        command = [sys.executable, "-m", "job", "status", folder, "--watch"]
        unset = ("COLUMNS", "LINES", "PYTHONUTF8", "PYTHONIOENCODING", "LC_ALL", "LANG")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        process = subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.PIPE, env=kept | env, cwd=ROOT
        )
        os.close(theirs)
        shown = b""
        try:
            while more := os.read(ours, 4096):
                shown += more
        except OSError:
            pass  # Linux's end of a terminal
        os.close(ours)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")
    return shown.decode().replace("\r\n", "\n")


def an_ended_record() -> RunRecord:
    record = a_record()
    record.status = "failed"
    record.progress.losses = CURVE
    return record


def test_the_loss_is_drawn_over_the_whole_run() -> None:
    text = describe(an_ended_record(), URI, NOW)
    [curve] = [line.strip() for line in text.splitlines() if "▁" in line]
    assert len(curve) == len(CURVE)
    assert (curve[0], curve[-1]) == ("█", "▁")
    assert sorted(curve, reverse=True) == list(curve), "it falls all the way"


@pytest.mark.parametrize(
    ("values", "drawn"), [([], ""), ([1.0], ""), ([2.0, 2.0], "▁▁"), ([0.0, 3.5, 7.0], "▁▅█")]
)
def test_a_curve_of_few_points(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (24, 30), (6, 40)])
def test_a_terminal_shows_no_line_and_no_row_more_than_it_has(rows: int, columns: int) -> None:
    lines = on_a_terminal(an_ended_record(), rows, columns, PYTHONUTF8="1").splitlines()
    assert lines[0].startswith("run         run-1")
    assert max(len(line) for line in lines) < columns
    assert len(lines) <= rows - 1


def test_of_many_attempts_a_low_terminal_shows_the_newest() -> None:
    record = an_ended_record()
    record.attempts = [record.attempts[0].model_copy(update={"number": n}) for n in range(1, 50)]
    lines = on_a_terminal(record, 20, 80, PYTHONUTF8="1").splitlines()
    assert len(lines) == 19
    assert lines[-1].startswith("attempt 49")
    assert any("▁" in line for line in lines)


def test_a_terminal_without_unicode_gets_letters_that_it_has() -> None:
    record = an_ended_record()
    record.progress.loss = None
    record.attempts[0].reason = "no file 漢.jsonl"
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    text = on_a_terminal(record, 24, 100, **ascii_only)
    assert text.isascii()
    assert "#*" in text
    assert "no file ?.jsonl" in text
    assert "loss        -, validation" in text


def test_whether_a_run_is_promoted(tmp_path: Path) -> None:
    root = open_storage(str(tmp_path))
    for name, gate in (("run-1", "passed"), ("run-2", "passed"), ("run-3", "not set")):
        record = a_record()
        record.run_id, record.status, record.results = name, "succeeded", {"gate": gate}
        root.write(f"{name}/run.json", record.model_dump_json().encode())

    def told(name: str) -> str:
        out = io.StringIO()
        assert status(f"{tmp_path}/{name}/", out=out) == 0
        (line,) = [s for s in out.getvalue().splitlines() if s.startswith("promoted")]
        return line.removeprefix("promoted").strip()

    assert told("run-1") == "no"
    root.write("promoted.json", b'{"run_id": "run-1"}')
    assert [told(f"run-{n}") for n in (1, 2, 3)] == ["yes", "no, run-1 is", "no, the gate: not set"]
    for name, expected in (("run-1", True), ("run-2", False)):
        out = io.StringIO()
        status(f"{tmp_path}/{name}", as_json=True, out=out)
        assert json.loads(out.getvalue())["promoted"] is expected


def a_succeeded_run(bucket: str) -> str:
    record = a_record()
    record.status, record.results = "succeeded", {"gate": "passed"}
    store(f"{bucket}/out/run-1", record)
    open_storage(f"{bucket}/out").write("promoted.json", b'{"run_id": "run-1"}')
    return f"{bucket}/out/run-1"


def test_what_may_not_be_read_is_not_known(bucket: str, interpose: Interpose) -> None:
    """Who calls a hook must not take it for a no."""
    uri = a_succeeded_run(bucket)

    def refuse(call: Call) -> Answer | None:
        return s3_error(403, "AccessDenied") if "/promoted.json" in call.path else None

    interpose(refuse)
    text, as_json = io.StringIO(), io.StringIO()
    status(uri, out=text)
    [line] = [s for s in text.getvalue().splitlines() if s.startswith("promoted")]
    assert line.startswith(f"promoted    not known: {bucket}/out/promoted.json: ")
    status(uri, as_json=True, out=as_json)
    assert json.loads(as_json.getvalue())["promoted"] is None


def test_an_outage_is_no_run_that_is_not_promoted(bucket: str, interpose: Interpose) -> None:
    uri = a_succeeded_run(bucket)

    def refuse(call: Call) -> Answer | None:
        return s3_error(503, "SlowDown") if "/promoted.json" in call.path else None

    interpose(refuse)
    with pytest.raises(Unavailable):
        status(uri, as_json=True, out=io.StringIO())


def test_watch_waits_for_what_is_promoted(
    bucket: str, interpose: Interpose, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = a_succeeded_run(bucket)
    told = threading.Event()

    class Errors(io.StringIO):
        def write(self, text: str) -> int:
            if "storage can't be reached, trying again" in text:
                told.set()
            return super().write(text)

    def refuse(call: Call) -> Answer | None:
        down = not told.is_set() and "/promoted.json" in call.path
        return s3_error(503, "SlowDown") if down else None

    interpose(refuse)
    monkeypatch.setattr(sys, "stderr", Errors())
    out = io.StringIO()
    assert status(uri, watch=True, out=out, interval_seconds=0.01) == 0
    assert told.is_set()
    assert "promoted    yes" in out.getvalue().splitlines()


def test_a_run_in_the_root_of_its_bucket_has_nothing_beside_it(bucket: str) -> None:
    """A copy, for one that somebody wants to keep."""
    record = a_record()
    record.status = "succeeded"
    store(bucket, record)
    out = io.StringIO()
    status(bucket, as_json=True, out=out)
    assert json.loads(out.getvalue())["promoted"] is False


@pytest.mark.parametrize("module", ["job.status", "job.status.all_runs"])
def test_it_loads_neither_torch_nor_the_settings(module: str) -> None:
    code = f"import json, sys, {module}, job.__main__; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dear = {"torch", "transformers", "boto3", "numpy", "jinja2", "job.config", "pydantic_settings"}
    assert dear.isdisjoint(json.loads(done.stdout))


def test_of_a_run_in_s3_neither(bucket: str) -> None:
    """A sixth of a second for boto3, which only moves files."""
    open_storage(f"{bucket}/out/run-1").write(RECORD_KEY, b"{}")
    code = (
        "import json, sys; from job.storage import open_storage;"
        f"open_storage({bucket + '/out/run-1'!r}).read({RECORD_KEY!r});"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "botocore" in loaded
    assert {"boto3", "s3transfer"}.isdisjoint(loaded)
