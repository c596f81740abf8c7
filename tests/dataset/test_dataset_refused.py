"""Rows that are invalid, and data that is refused for what it holds or lacks."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from job.dataset import ChatFormat, DataFile, DataRejected, RejectedRow, check_only
from job.dataset import prepare as prepare_in
from job.dataset.review.table import table
from job.dataset.review.tally import REPORTED
from job.errors import DataError
from tests.dataset.preparing import BAD, ROWS, Prepare, long_row, options
from tests.dataset.standin import PLAIN_CHATML, chat_row, data_file, fetched, model_folder


def test_with_fail_every_invalid_row_is_told(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS[:2], BAD, b"{", ROWS[2], chat_row("a question", ""))
    with pytest.raises(DataRejected) as error:
        prepare([file], chatml, options())
    assert isinstance(error.value, DataError)
    assert error.value.exit_code == 65
    assert [problem.where for problem in error.value.problems] == [
        f"{path}:3",
        f"{path}:4",
        f"{path}:6",
    ]
    assert error.value.report.counts["invalid"] == 3
    quarantine = error.value.report.quarantine
    assert quarantine is not None
    assert quarantine.read_bytes().startswith(BAD + b"\n{\n")


@pytest.mark.parametrize("invalid_rows", ["fail", "skip"])
def test_all_damaged_files_are_told_with_the_invalid_rows_besides(
    invalid_rows: Any, prepare: Prepare, chatml: ChatFormat, tmp_path: Path
) -> None:
    last = data_file(tmp_path / "last.jsonl", *ROWS, b"{")
    whole = gzip.compress(last.path.read_bytes())
    cut = []
    for name in ("one", "other"):
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(whole[:-40])
        cut.append(fetched(path))
    chosen = options(invalid_rows=invalid_rows)
    for attempt in (
        lambda: check_only([*cut, last], chosen),
        lambda: prepare([*cut, last], chatml, chosen),
    ):
        with pytest.raises(DataError, match="upload the file again") as error:
            attempt()
        where = [problem.where.rpartition(":")[0] for problem in error.value.problems]
        invalid = [str(last.path)] if invalid_rows == "fail" else []
        assert where == [*(str(file.path) for file in cut), *invalid]


def test_a_hundred_invalid_rows_are_told_in_fifty_lines(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    with pytest.raises(DataRejected) as error:
        prepare([data_file(path, *[BAD] * 100)], chatml, options())
    assert len(error.value.problems) == 100
    assert str(error.value).startswith("100 problems:")
    assert str(error.value).endswith("… and 50 more")


def test_reading_ends_where_nobody_would_read_on(path: Path) -> None:
    file = data_file(path, *[BAD] * (REPORTED + 10))
    with pytest.raises(DataRejected) as error:
        check_only([file], options())
    assert len(error.value.problems) == REPORTED


def test_with_skip_invalid_rows_are_quarantined(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS, BAD)
    data = prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.02))
    assert data.report.counts["invalid"] == 1
    assert data.report.rows == 61
    [bad] = data.report.rejected
    assert isinstance(bad, RejectedRow)
    assert data.report.quarantine is not None
    assert data.report.quarantine.read_bytes() == BAD + b"\n"
    [told] = data.report.as_dict()["rejected"]
    assert told == {
        "uri": str(path),
        "line": 61,
        "problems": [
            {"path": "messages", "reason": "is empty", "hint": "a row is one conversation"}
        ],
    }


def test_with_skip_too_many_invalid_rows_fail(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS[:9], BAD)
    with pytest.raises(DataRejected, match="1 of 10 rows are invalid") as error:
        prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.09))
    assert [problem.where for problem in error.value.problems] == ["data", f"{path}:10"]
    prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (json.dumps(ROWS).encode(), "1 invalid.*one object a line, not an array"),
        (b"\r".join(json.dumps(row).encode() for row in ROWS), "1 invalid.*end lines with"),
        (gzip.compress(b"{}"), "name it .jsonl.gz"),
        (BAD + b"\n" + BAD, r"no valid row \(2 invalid\); line 1: messages: is empty"),
    ],
    ids=["array", "carriage_returns", "gzip", "no_valid_row"],
)
def test_with_skip_no_file_is_lost_as_one_row(
    content: bytes, reason: str, tmp_path: Path, path: Path
) -> None:
    """Few rows, if they are counted; thousands, if they could be read."""
    lost = tmp_path / "lost.jsonl"
    lost.write_bytes(content)
    files = [data_file(path, *ROWS), fetched(lost)]
    with pytest.raises(DataRejected, match=f"{lost}: holds no valid row") as error:
        check_only(files, options(invalid_rows="skip", max_invalid_fraction=0.1))
    assert re.search(reason, str(error.value))
    [problem] = error.value.problems
    assert problem.where == str(lost)


def test_rows_that_were_left_out_are_shown(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS, BAD, b"{")
    report = prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.1)).report
    told = f"2 × invalid, and left out; first: {path}:61: messages: is empty"
    assert told in list(report.notices())
    lines = list(table(report))
    assert lines[lines.index("  invalid: 2") + 1] == f"    {path}:61  messages: is empty"


def test_a_row_that_the_template_refuses_is_invalid(
    prepare: Prepare, tmp_path: Path, path: Path
) -> None:
    chat = ChatFormat.load(model_folder(tmp_path / "model", PLAIN_CHATML))
    tools = [{"name": "weather"}]
    file = data_file(path, *ROWS, chat_row("Hello", "Hi.", tools=tools))
    with pytest.raises(DataRejected, match=f"{path}:61: tools: the chat template ignores"):
        prepare([file], chat, options())
    data = prepare([file], chat, options(invalid_rows="skip", max_invalid_fraction=0.1))
    assert data.report.quarantine is not None
    assert json.loads(data.report.quarantine.read_bytes())["tools"] == tools
    assert data.report.counts["invalid"] == 1


@pytest.mark.parametrize(
    ("rows", "changes", "reason"),
    [
        ([], {}, "holds no rows"),
        ([b"", b"  "], {}, "holds no rows"),
        (ROWS, {"max_seq_length": 16}, "no row is left to train on"),
        (ROWS, {"eval_fraction": 0.99999}, "no row is left to train on"),
        ([BAD], {"invalid_rows": "skip", "max_invalid_fraction": 1}, "no row is left to train on"),
    ],
)
def test_data_with_nothing_to_train_on(
    prepare: Prepare,
    rows: list[Any],
    changes: dict[str, Any],
    reason: str,
    chatml: ChatFormat,
    path: Path,
) -> None:
    with pytest.raises(DataRejected, match=reason):
        prepare([data_file(path, *rows)], chatml, options(**changes))


def test_a_second_attempt_refuses_what_the_first_refused(
    chatml: ChatFormat, path: Path, tmp_path: Path
) -> None:
    file = data_file(path, *ROWS, long_row(40), BAD)
    told = []
    for _ in range(2):
        with pytest.raises(DataRejected) as error:
            prepare_in([file], chatml, options(overlong_rows="fail"), tmp_path / "prepared")
        told.append((error.value.problems, error.value.report))
    assert told[0] == told[1]


def test_hardly_any_trained_token_is_refused(
    prepare: Prepare, chatml: ChatFormat, file: DataFile
) -> None:
    ratio = prepare([file], chatml, options()).report.supervised_ratio
    assert ratio is not None
    prepare([file], chatml, options(min_supervised_ratio=ratio))
    with pytest.raises(DataRejected, match="FORGE_MIN_SUPERVISED_RATIO is 99") as error:
        prepare([file], chatml, options(min_supervised_ratio=0.99))
    assert error.value.report.preview is not None  # the page says where the tokens go


def test_one_id_for_all_rows_is_named_as_the_reason(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    rows = [one | {"id": "mcp"} for one in [*ROWS, chat_row("one more", "x")]]
    with pytest.raises(DataRejected, match="61 rows are tied together by their 'id'"):
        prepare([data_file(path, *rows)], chatml, options(eval_fraction=0.999))


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["mcp"] * 60, "no row is held out, though FORGE_EVAL_FRACTION is 1e-09; 60 rows are tied"),
        ([None] * 60, "no row is held out, though FORGE_EVAL_FRACTION is 1e-09; add rows"),
    ],
)
def test_nothing_held_out_is_told(path: Path, ids: list[str | None], told: str) -> None:
    rows = [row | {"id": given} for row, given in zip(ROWS, ids, strict=True)]
    report = check_only([data_file(path, *rows)], options(eval_fraction=1e-9))
    for lines in (list(report.notices()), list(table(report))):
        assert any(told in line for line in lines)
    report = check_only([data_file(path, *rows)], options(eval_fraction=0))
    assert not any("held out" in notice for notice in report.notices())


def test_a_prompt_that_decides_how_much_is_held_out_is_told(path: Path) -> None:
    greeted = [chat_row("Hello there", f"answer {n}") for n in range(40)]
    report = check_only([data_file(path, *ROWS, *greeted)], options(eval_max_rows=20))
    assert report.counts["held_out_unused"] > 20
    told = "40 rows have the same prompt, so they stay on one side (40% of all)"
    for lines in (list(report.notices()), list(table(report))):
        assert any(told in line and "tell them apart" in line for line in lines)
    assert report.as_dict()["same_prompt"] == 40
    assert not list(check_only([data_file(path, *ROWS, *greeted[:6])], options()).notices())
    with pytest.raises(DataRejected, match="40 rows have the same prompt"):
        check_only([data_file(path, *greeted)], options())


def test_a_group_that_decides_how_much_is_held_out_is_told(path: Path) -> None:
    rows = [row | {"id": str(max(n, 11))} for n, row in enumerate(ROWS)]
    report = check_only([data_file(path, *rows)], options())
    [notice] = report.notices()
    assert notice.startswith(
        "12 rows are tied together by their 'id', so they stay on one side (20%"
    )
    rows = [row | {"id": str(max(n, 5))} for n, row in enumerate(ROWS)]
    assert not list(check_only([data_file(path, *rows)], options()).notices())
