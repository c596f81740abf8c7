"""Why a line is no JSON, and what its writer should do about it."""

from __future__ import annotations

import re
from typing import Final

import orjson

from job.dataset.source.lines import BOM

_NOT_JSON_LINES: Final = (
    (b"\x1f\x8b", "the file looks like gzip: name it .jsonl.gz"),
    (b"\x28\xb5\x2f\xfd", "the file looks like zstd: name it .jsonl.zst"),
    (b"PAR1", "the file looks like Parquet: write it as JSON lines"),
    (b"\xff\xfe", "the file looks like UTF-16: write it as UTF-8"),
    (b"\xfe\xff", "the file looks like UTF-16: write it as UTF-8"),
    (b"[", "the file looks like one JSON array: write one object a line"),
)


def unreadable(data: bytes, number: int, error: ValueError) -> tuple[str, str]:
    """Reason and hint for line `number` of a file."""
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
        return (f"is not JSON: {error.msg} (column {error.pos + 1})", _json_hint(data, error))
    return (f"can't be read: {error}", "")


def _json_hint(data: bytes, error: orjson.JSONDecodeError) -> str:
    if data.lstrip().startswith(BOM):
        return "a byte-order mark belongs at the start of a file, if anywhere: take it out"
    if data.lstrip().startswith(b"{'"):
        return "it looks like Python: write double quotes"
    if re.search(rb"[:\[,]\s*-?(NaN|Infinity)\b", data):
        return "JSON has no NaN or Infinity"
    if "surrogate" in error.msg:
        return "half a character: text was cut in the middle of one; cut it at whole characters"
    if "control character" in error.msg:
        return "write control characters as \\u escapes, or take them out"
    if b"\r" in data:
        return "end lines with \\n, not with \\r alone"
    if "depth" in error.msg:
        return "no conversation nests so deeply"
    return "one whole JSON object a line"
