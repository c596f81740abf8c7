"""Single rows of the data once more: a second pass that parses only what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from job.dataset.rows.read import read_row
from job.dataset.rows.row import Row
from job.dataset.source.fetch import DataFile
from job.dataset.source.lines import read_lines
from job.dataset.store import Rows

_BATCH_LINES: Final = 1000


def rows_at(
    files: Sequence[DataFile],
    records: Rows,
    indices: Iterable[int],
    alive: Callable[[], None] = lambda: None,
) -> dict[int, Row]:
    """The rows of some records, by their index, with as many turns as were kept.

    `alive` is called now and then as lines are read. Raises `DataError` where a file is damaged.
    """
    wanted: dict[int, dict[int, int]] = {}
    for index in indices:
        record = records[index]
        wanted.setdefault(int(record["file"]), {})[int(record["line"])] = int(index)
    found: dict[int, Row] = {}
    for number, lines in wanted.items():
        file, last = files[number], max(lines)
        for line in read_lines(file):
            if line.number % _BATCH_LINES == 0:
                alive()
            if line.number in lines:
                row = read_row(file.source.uri, line)
                assert isinstance(row, Row), "the row was valid when it was read first"
                index = lines[line.number]
                turns = int(records[index]["turns"])
                found[index] = replace(row, messages=row.messages[:turns], raw=b"")
            if line.number >= last:
                break
    return found
