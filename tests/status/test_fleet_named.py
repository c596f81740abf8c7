"""`status --all --runs`: just these runs, those that never began among them."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from job.__main__ import main
from job.errors import SettingsError
from job.status.named import run_ids
from job.status.records import scan
from job.storage import Storage, open_storage
from tests.status.test_fleet_status import a_record, store
from tests.storage.wire import Call, Interpose


def table_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["status", *arguments, "--all"]) == 0
    return capsys.readouterr().out.splitlines()


def test_what_has_no_record_is_told(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tools-1", "tools-2-1b"):
        store(storage, a_record(name))
    ids = tmp_path / "ids"
    ids.write_text("tools-1\ntools-2\n\ntools-1\n")

    lines = table_of(capsys, storage.uri, "--runs", str(ids))

    assert [line.split("  ")[0] for line in lines[1:3]] == ["tools-1", "tools-2"]
    assert lines[2].split()[1:4] == ["not", "started", "–"]
    assert lines[-1] == "2 runs: 1 running, 1 not started; 2.0 GPU hours"

    as_json = table_of(capsys, storage.uri, "--runs", str(ids), "--json")
    told = {row["run_id"]: row["status"] for row in map(json.loads, as_json)}
    assert told == {"tools-1": "running", "tools-2": "not started"}

    filtered = table_of(capsys, storage.uri, "--runs", str(ids), "--status", "not started")
    assert filtered[-1].startswith("1 runs: 1 not started;")


def test_nothing_else_is_asked_for(bucket: str, interpose: Interpose) -> None:
    for name in ("a", "b", "other"):
        store(open_storage(f"{bucket}/runs"), a_record(name))
    calls = Counter[str]()
    interpose(lambda call: calls.update([call.path.rsplit("/runs/", 1)[1]]))
    rows = list(scan(open_storage(f"{bucket}/runs"), runs=["b", "c", "a"]))
    assert [(row.run_id, row.status) for row in rows if row] == [
        ("b", "running"),
        ("c", "not started"),
        ("a", "running"),
    ]
    assert calls == {"b/run.json": 1, "c/run.json": 1, "a/run.json": 1}


def test_a_prefix_is_the_stores_to_filter(bucket: str, interpose: Interpose) -> None:
    """Of 150 foreign folders none is listed."""
    storage = open_storage(f"{bucket}/runs")
    for number in range(150):
        storage.write(f"other-{number:03}/run.json", b"")
    store(storage, a_record("tools-1"))
    lists = list[str]()

    def seen(call: Call) -> None:
        if "list-type" in call.path:
            call.path += "&max-keys=100"
            lists.append(call.path)

    interpose(seen)
    rows = list(scan(open_storage(f"{bucket}/runs"), prefix="tools-"))
    assert [row.run_id for row in rows if row] == ["tools-1"]
    assert len(lists) == 1


def test_a_prefix_with_a_folder_in_it_is_refused(
    directory: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    store(directory, a_record("a"))
    assert main(["status", directory.uri, "--all", "--prefix", "x/a"]) == 78
    assert "--prefix: 'x/a' holds a '/'" in capsys.readouterr().err


def test_if_none_began_there_is_a_table_all_the_same(
    directory: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table_of(capsys, directory.uri, "--run-ids", "a\nb", "--columns", "lora_r")
    assert lines[-1] == "2 runs: 2 not started; 0.0 GPU hours"


def test_where_no_run_is_named_that_is_no_good_end(
    directory: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as where a script's variable is empty, or all runs of a plan lie in other outputs."""
    store(directory, a_record("a"))
    file = tmp_path / "runs.json"
    for text in ("", "[]", '[{"run-id": "b", "settings": "{\\"output_uri\\": \\"/other\\"}"}]'):
        file.write_text(text)
        assert main(["status", directory.uri, "--all", "--runs", str(file)]) == 78
        assert f"--runs {file}: names no run" in capsys.readouterr().err
    assert main(["status", directory.uri, "--all", "--run-ids", " \n"]) == 78
    assert "--run-ids: names no run" in capsys.readouterr().err


def test_from_stdin(
    directory: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a, b\tc\r\nd")))
    assert table_of(capsys, directory.uri, "--runs", "-")[-1].startswith("4 runs: 4 not started")


def test_what_plan_wrote_without_the_runs_of_another_output() -> None:
    items = [
        {"run-id": "a", "settings": '{"lora_r": "8"}'},
        {"run-id": "b", "settings": '{"output_uri": "s3://b/runs/"}'},
        {"run-id": "c", "settings": '{"output_uri": "s3://b/others"}'},
    ]
    assert run_ids(json.dumps(items), "x", "s3://b/runs") == ["a", "b"]
    assert run_ids(json.dumps(items), "x", "s3://b/others/") == ["a", "c"]


def test_all_that_are_no_ids_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        run_ids("good\n../up\nBad_1\n", "--runs ids", "s3://b")
    told = [str(problem) for problem in refused.value.problems]
    assert [line.partition(" is no")[0] for line in told] == [
        "--runs ids: '../up'",
        "--runs ids: 'Bad_1'",
    ]
    assert all("must be a DNS-1123 label" in line for line in told)


@pytest.mark.parametrize(
    "text", ["[", "[1]", '["a"]', '[{"run-id": "a"}]', '[{"run-id": "a", "settings": "no"}]']
)
def test_a_file_that_plan_did_not_write(text: str) -> None:
    with pytest.raises(SettingsError, match="is not what plan --into wrote"):
        run_ids(text, "--runs x", "s3://b")


def test_a_file_that_can_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9")
    for name, told in (("none", "No such file"), ("latin", "is not UTF-8")):
        assert main(["status", "/runs", "--all", "--runs", str(tmp_path / name)]) == 78
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--runs", "ids"],
        ["--run-ids", "a"],
        ["--all", "--run-ids", "a", "--prefix", "b"],
        ["--all", "--run-ids", "a", "--runs", "ids"],
    ],
)
def test_options_that_do_not_go_together(more: list[str]) -> None:
    assert main(["status", "/runs", *more]) == 78
