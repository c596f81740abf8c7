"""`demo --output`: the copy replaces nothing but an earlier copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job.__main__ import main
from job.demo.copied import BUCKET, copy, refuse_foreign
from job.errors import SettingsError
from job.ledger import RunRecord
from job.storage import open_storage

DEMO = RunRecord(run_id="demo", settings={"output_uri": f"s3://{BUCKET}/runs"})


def test_a_folder_with_anything_else_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thesis = tmp_path / "thesis.md"
    thesis.write_text("three years")
    assert main(["demo", "--output", str(tmp_path)]) == 78
    assert thesis.read_text() == "three years"
    assert f"--output {tmp_path}: is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "record",
    [
        "{",
        json.dumps({"run_id": "demo"}),
        RunRecord(run_id="weather", settings=DEMO.settings).model_dump_json(),
        RunRecord(run_id="demo", settings={"output_uri": "s3://ours/runs"}).model_dump_json(),
    ],
)
def test_the_record_of_another_run_is_not_the_demos(tmp_path: Path, record: str) -> None:
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(SettingsError, match="holds no earlier copy"):
        refuse_foreign(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="is no folder for a copy"):
            refuse_foreign(path)


def test_an_earlier_copy_is_replaced(tmp_path: Path) -> None:
    run = open_storage(str(tmp_path / "run"))
    run.write("run.json", DEMO.model_dump_json().encode())
    run.write("adapter/README.md", b"new")
    output = tmp_path / "output"
    refuse_foreign(output)
    copy(run, output)
    (output / "adapter" / "left.md").write_text("old")
    refuse_foreign(output)
    copy(run, output)
    assert sorted(path.name for path in output.rglob("*")) == ["README.md", "adapter", "run.json"]
    assert (output / "adapter" / "README.md").read_text() == "new"
