"""Where the text of `status` goes: files, pipes that close, terminals of few letters, machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.__main__ import main
from job.ledger import Progress
from job.storage import Storage
from tests.status.test_fleet_status import a_record, exact, store

COMMAND = [sys.executable, "-m", "job", "status"]


def test_the_table_goes_into_the_file_and_to_the_log(
    directory: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(directory, a_record("ä" * 3))
    arguments = ["status", directory.uri, "--all", "--output", str(tmp_path / "table")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "äää" in printed
    assert (tmp_path / "table").read_text(encoding="utf-8") == printed
    assert main([*arguments, "--json"]) == 0
    assert capsys.readouterr().out == "", "what is for machines goes to one of them"
    assert json.loads((tmp_path / "table").read_text())["run_id"] == "äää"


@pytest.mark.parametrize("more", [["--all"], []])
def test_a_table_that_fails_leaves_the_old_file(
    directory: Storage, tmp_path: Path, more: list[str]
) -> None:
    (tmp_path / "table").write_text("of yesterday")
    arguments = ["status", directory.uri, *more, "--output", str(tmp_path / "table")]
    assert main(arguments) == 78, "there is no run"
    assert (tmp_path / "table").read_text() == "of yesterday"


@pytest.mark.parametrize("runs", [1, 400])
def test_a_reader_that_has_gone_is_no_traceback(directory: Storage, runs: int) -> None:
    """As `| head`: with more than a pipe's buffer, and with less than Python's own."""
    for number in range(runs):
        store(directory, a_record(f"run-{number}", settings={"model": "m" * 300}))
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, directory.uri, "--all", "--columns", "model"]
    ended = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_so_it_is_of_one_run(directory: Storage) -> None:
    store(directory, a_record("a"))
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*COMMAND, f"{directory.uri}/a"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_stdout_has_no_letters_for_is_replaced(directory: Storage, encoding: str) -> None:
    store(directory, a_record("run", "failed", progress=Progress(), settings={"model": "模型"}))
    command = [*COMMAND, directory.uri, "--all", "--columns", "model"]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    ended = subprocess.run(command, env=env, capture_output=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    row = ended.stdout.decode(encoding).splitlines()[1]
    assert row.split()[3:6] == ["-", "-", "??"], "a dash is a dash"


def test_machines_are_told_no_nan(directory: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has none: other languages' parsers refuse it."""
    progress = Progress(step=1, loss=float("nan"), eval_loss=float("inf"))
    record = a_record("a", results=exact(float("nan")), settings={"learning_rate": float("nan")})
    record.progress = progress
    # As another program may have written it: pydantic itself writes null.
    directory.write("a/run.json", json.dumps(record.model_dump(mode="python")).encode())
    assert "NaN" in directory.read("a/run.json")[0].decode()

    assert main(["status", directory.uri, "--all", "--json", "--columns", "learning_rate"]) == 0
    row = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (row["loss"], row["eval_loss"], row["exact"]) == (None, None, None)
    assert row["settings"] == {"learning_rate": None}

    assert main(["status", f"{directory.uri}/a", "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_a_loss_that_is_none_comes_last(
    directory: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, loss in (("a", 2.0), ("b", float("nan")), ("c", 1.0)):
        record = a_record(name, progress=Progress(step=1, loss=loss))
        directory.write(f"{name}/run.json", json.dumps(record.model_dump(mode="python")).encode())
    assert main(["status", directory.uri, "--all", "--json", "--sort", "loss"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["run_id"] for row in rows] == ["c", "a", "b"]


def test_each_process_holds_a_gpu(directory: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    store(directory, a_record("four", "failed", fingerprint={"world_size": 4}))
    store(directory, a_record("one", "failed"))
    assert main(["status", directory.uri, "--all", "--sort", "gpu_hours"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[6] for line in lines[1:3]] == ["4.00", "1.00"]
    assert lines[-1].endswith("5.0 GPU hours")
