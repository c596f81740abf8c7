"""Rows of the data, every one checked. Lines are read and screened some hundred at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from job.dataset.rows.answers import as_called
from job.dataset.rows.check import check
from job.dataset.rows.draft import Draft
from job.dataset.rows.normalise import normalise
from job.dataset.rows.ordinary import ordinary
from job.dataset.rows.row import Problems, RejectedRow, Row, RowProblem
from job.dataset.rows.screen import examine, nothing_odd, too_nested
from job.dataset.rows.tools import ToolReader
from job.dataset.rows.unreadable import unreadable
from job.dataset.source.fetch import DataFile
from job.dataset.source.lines import MAX_LINE_BYTES, Line, read_lines
from job.errors import DataError, Problem

_BATCH_BYTES: Final = 64 * 1024
"""Few enough that their parsed JSON stays in the processor's cache."""
_RAW_OF_CUT: Final = 4096
"""Bytes of an absurdly long line that are kept for the quarantine."""


def read_rows(files: Iterable[DataFile]) -> Iterator[Row | RejectedRow]:
    """Every row of `files` in order; blank lines are skipped.

    Raises `DataError` where compressed files are damaged, after all rows that can be read.
    """
    tools, damage = ToolReader(), list[Problem]()
    for file in files:
        try:
            for batch in _batches(file):
                yield from _rows(file.source.uri, batch, tools)
        except DataError as error:
            damage += error.problems
    if damage:
        raise DataError(damage)


def read_row(uri: str, line: Line) -> Row | RejectedRow:
    """One line that isn't blank, once more: as `read_rows` reads it."""
    [row] = _rows(uri, [line], ToolReader())
    return row


def _batches(file: DataFile) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    try:
        for line in read_lines(file):
            if (not line.data or line.data.isspace()) and not line.cut:
                continue
            batch.append(line)
            size += len(line.data)
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    except DataError:
        yield batch
        raise
    yield batch


def _rows(uri: str, lines: list[Line], tools: ToolReader) -> Iterator[Row | RejectedRow]:
    read = [_parsed(uri, line) for line in lines]
    good = [n for n, value in enumerate(read) if type(value) is not RejectedRow]
    clear = nothing_odd([lines[n].data for n in good], [read[n] for n in good])
    for line, value in zip(lines, read, strict=True):
        if isinstance(value, RejectedRow):
            yield value
        else:
            yield _row(uri, line, value, clear, tools)


def _parsed(uri: str, line: Line) -> object:
    """The JSON of a line, or a `RejectedRow`."""
    if line.cut:
        reason = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB"
        problem = RowProblem("", reason, "split the conversation")
        return RejectedRow(uri, line.number, line.data[:_RAW_OF_CUT], (problem,))
    try:
        return orjson.loads(line.data)
    except orjson.JSONDecodeError as error:
        problem = RowProblem("", *unreadable(line.data, line.number, error))
        return RejectedRow(uri, line.number, line.data, (problem,))


def _row(uri: str, line: Line, value: object, clear: bool, tools: ToolReader) -> Row | RejectedRow:
    found = Problems()
    if not clear and too_nested(value):
        found.add("", "is nested too deeply", "no conversation nests so deeply")
        return RejectedRow(uri, line.number, line.data, tuple(found.found))
    draft = ordinary(value, tools)
    if draft is None:
        draft, found = _checked(line, value, tools)
    if not clear and not nothing_odd([line.data], [value]):
        examine(line.data, value, draft, found)
    if found.found:
        return RejectedRow(uri, line.number, line.data, tuple(found.found))
    return Row(
        uri,
        line.number,
        tuple(as_called(draft.messages)),
        draft.toolbox.form,
        draft.meta,
        line.data,
        tuple(found.warned),
        draft.dialect,
    )


def _checked(line: Line, value: object, tools: ToolReader) -> tuple[Draft, Problems]:
    """A row that needs a closer look, and what there is to say of it."""
    found = Problems()
    draft = normalise(value, tools, found)
    if found.inexact:
        # orjson makes a float of a whole number over 64 bits; calls and tools must keep theirs.
        value, found = json.loads(line.data), Problems()
        draft = normalise(value, tools, found)
    if draft.whole:
        check(draft, tools, found)
    return draft, found
