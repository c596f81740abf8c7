"""A corpus of malformed files, each with the error that its writer should read.

`cases.json` has for each file the line, and all that is wrong there: JSON path, a part of the
reason, a part of the hint. Files with a damaged stream have the error that ends the run. `make.py`
wrote the files that no editor writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.dataset import RejectedRow, Row, read_rows
from job.errors import DataError
from tests.dataset.standin import fetched

CORPUS = Path(__file__).parent / "malformed"
CASES: dict[str, dict[str, Any]] = json.loads((CORPUS / "cases.json").read_text())
ROWS = [name for name, case in CASES.items() if "problems" in case]
STREAMS = [name for name, case in CASES.items() if "stream" in case]


def test_every_file_has_its_expected_error() -> None:
    assert {path.name for path in CORPUS.glob("*.jsonl*")} == set(CASES)
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_a_malformed_row_is_told_with_line_path_reason_and_hint(name: str) -> None:
    case = CASES[name]
    rows = list(read_rows([fetched(CORPUS / name)]))
    refused = {row.line: row for row in rows if isinstance(row, RejectedRow)}
    assert sorted(refused) == [case["line"], *case.get("and_lines", [])]
    row = refused[case["line"]]
    told = [(found.path, found.reason, found.hint) for found in row.problems]
    assert len(told) == len(case["problems"]), told
    for found, (path, reason, hint) in zip(told, case["problems"], strict=True):
        assert (found[0], reason in found[1], hint in found[2]) == (path, True, True), found
        assert hint
    where = f"{CORPUS / name}:{case['line']}: "
    assert all(str(problem).startswith(where) for problem in row.as_problems())


@pytest.mark.parametrize("name", ROWS)
def test_a_malformed_row_spoils_no_other(name: str) -> None:
    rows = list(read_rows([fetched(CORPUS / name)]))
    others = [row for row in rows if not isinstance(row, RejectedRow)]
    assert all(isinstance(row, Row) for row in others)
    if not name.startswith(("named-wrongly", "lines-", "encoding-bom-")):
        assert (rows[0].line, rows[-1].line, len(others)) == (1, rows[-1].line, 2)


@pytest.mark.parametrize("name", STREAMS)
def test_a_damaged_stream_ends_the_run(name: str) -> None:
    with pytest.raises(DataError) as error:
        list(read_rows([fetched(CORPUS / name)]))
    problem = error.value.problems[0]
    assert error.value.exit_code == 65
    assert problem.where.startswith(f"{CORPUS / name}:")
    assert CASES[name]["stream"] in problem.found
    assert CASES[name]["hint"] == problem.hint


def test_rows_before_the_damage_are_read() -> None:
    name = "gzip-rest-after-the-end.jsonl.gz"
    rows = read_rows([fetched(CORPUS / name)])
    assert [next(rows).line for _ in range(3)] == [1, 2, 3]
    with pytest.raises(DataError, match="after 3 whole lines"):
        next(rows)
