"""Rows of the data, one line at a time, every one checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from job.dataset.check import check
from job.dataset.fetch import DataFile
from job.dataset.lines import MAX_LINE_BYTES, Line, read_lines
from job.dataset.normalise import Draft, normalise
from job.dataset.row import Problems, RejectedRow, Row, RowProblem

_BOM: Final = b"\xef\xbb\xbf"
_NOT_JSON_LINES: Final = (
    (b"\x1f\x8b", "the file looks like gzip: name it .jsonl.gz"),
    (b"\x28\xb5\x2f\xfd", "the file looks like zstd: name it .jsonl.zst"),
    (b"PAR1", "the file looks like Parquet: write it as JSON lines"),
    (b"\xff\xfe", "the file looks like UTF-16: write it as UTF-8"),
    (b"\xfe\xff", "the file looks like UTF-16: write it as UTF-8"),
    (b"[", "the file looks like one JSON array: write one object a line"),
)
_LONG_NUMBER: Final = re.compile(rb"\d{19}")
_RAW_OF_CUT: Final = 4096
"""Bytes of an absurdly long line that are kept for the quarantine."""


def read_rows(files: Iterable[DataFile]) -> Iterator[Row | RejectedRow]:
    """Every row of `files` in order; blank lines are skipped.

    Raises `DataError` where a compressed file is damaged.
    """
    for file in files:
        for line in read_lines(file):
            if line.cut or line.data.strip(b" \t\r\x0b\x0c"):
                yield _row(file.source.uri, line)


def _row(uri: str, line: Line) -> Row | RejectedRow:
    if line.cut:
        reason = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB"
        problem = RowProblem("", reason, "split the conversation")
        return RejectedRow(uri, line.number, line.data[:_RAW_OF_CUT], (problem,))
    data = line.data.removeprefix(_BOM) if line.number == 1 else line.data
    problems = Problems()
    try:
        draft = normalise(_parsed(data), problems)
    except ValueError as error:
        problems.add("", *_unreadable(data, line.number, error))
        return RejectedRow(uri, line.number, line.data, tuple(problems.found))
    return _checked(uri, line, draft, problems)


def _checked(uri: str, line: Line, draft: Draft, problems: Problems) -> Row | RejectedRow:
    messages = tuple(message for message in draft.messages if message is not None)
    # With a turn missing in between, every remark on the order would be noise.
    if messages and len(messages) == len(draft.messages):
        check(messages, draft.tools, problems)
    if problems.found:
        return RejectedRow(uri, line.number, line.data, tuple(problems.found))
    return Row(uri, line.number, messages, draft.tools, draft.meta, line.data)


def _parsed(data: bytes) -> object:
    """The JSON of a line. Raises `ValueError`."""
    value = orjson.loads(data)
    # orjson makes a float of a whole number over 64 bits; calls and tools must keep theirs exact.
    if (b'"tool_calls"' in data or b'"tools"' in data) and _LONG_NUMBER.search(data):
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError("is nested too deeply") from None
    return value


def _unreadable(data: bytes, number: int, error: ValueError) -> tuple[str, str]:
    """Reason and hint for a line that is no JSON."""
    if number == 1:
        for magic, hint in _NOT_JSON_LINES:
            if data.startswith(magic):
                return ("is not JSON", hint)
    if b"\0" in data:
        return ("holds NUL bytes", "the file was damaged or not written to its end")
    try:
        data.decode()
    except UnicodeDecodeError as undecodable:
        return (f"is not UTF-8 at byte {undecodable.start + 1} of the line", "write it as UTF-8")
    if isinstance(error, orjson.JSONDecodeError):
        return (f"is not JSON: {error.msg} (column {error.pos + 1})", _json_hint(data))
    return (f"can't be read: {error}", "")


def _json_hint(data: bytes) -> str:
    if data.lstrip().startswith(b"{'"):
        return "it looks like Python: write double quotes"
    if re.search(rb":\s*-?(NaN|Infinity)\b", data):
        return "JSON has no NaN or Infinity"
    return "one whole JSON object a line"
