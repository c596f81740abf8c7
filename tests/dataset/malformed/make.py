"""Writes the files of this corpus that no editor writes: compressed, cut, damaged, too large.

python tests/dataset/malformed/make.py
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import zstandard

_HERE = Path(__file__).parent
_GOOD = json.dumps(
    {
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi."},
        ]
    }
).encode()
_LINES = b"".join(b"%s\n" % _GOOD for _ in range(3))
_NO_ROLE = b'{"messages": [{"content": "Hello"}]}'


def files() -> dict[str, bytes]:
    """Name → content of each."""
    zipped, packed = _gzip(_LINES), zstandard.compress(_LINES)
    turns = [{"role": ("user", "assistant")[n % 2], "content": "x"} for n in range(10_002)]
    return {
        "gzip-cut.jsonl.gz": zipped[:-12],
        "gzip-cut-in-the-header.jsonl.gz": zipped[:6],
        "gzip-cut-in-the-second-member.jsonl.gz": zipped + zipped[:-3],
        "gzip-checksum-wrong.jsonl.gz": zipped[:-8] + b"\0\0\0\0" + zipped[-4:],
        "gzip-rest-after-the-end.jsonl.gz": zipped + b"rest",
        "gzip-that-is-none.jsonl.gz": _LINES,
        "gzip-row-without-role.jsonl.gz": _gzip(_around(_NO_ROLE)),
        "gzip-line-too-long.jsonl.gz": _gzip(_around(b"[" + b" " * 2**24 + b"]")),
        "gzip-too-many-turns.jsonl.gz": _gzip(_around(_json({"messages": turns}))),
        "gzip-too-many-tools.jsonl.gz": _gzip(_around(_json(_with_tools(4097)))),
        "gzip-too-many-tools-in-the-text.jsonl.gz": _gzip(_around(_json(_in_text(4097)))),
        "gzip-too-many-turns-sharegpt.jsonl.gz": _gzip(
            _around(_json({"conversations": [{"from": "human", "value": "x"}] * 10_001}))
        ),
        "zstd-cut.jsonl.zst": packed[:-5],
        "zstd-checksum-wrong.jsonl.zst": _with_checksum()[:-1] + b"\0",
        "zstd-rest-after-the-end.jsonl.zst": packed + b"rest",
        "zstd-that-is-none.jsonl.zst": _LINES,
        "zstd-row-without-role.jsonl.zst": zstandard.compress(_around(_NO_ROLE)),
        "zstd-line-too-long.jsonl.zst": zstandard.compress(_around(b"[" + b" " * 2**24 + b"]")),
        "named-wrongly-gzip.jsonl": zipped,
        "named-wrongly-zstd.jsonl": packed,
        "named-wrongly-parquet.jsonl": b"PAR1\x15\x04\x15",
        "named-wrongly-utf-16-little.jsonl": b"\xff\xfe" + _GOOD.decode().encode("utf-16-le"),
        "named-wrongly-utf-16-big.jsonl": b"\xfe\xff" + _GOOD.decode().encode("utf-16-be"),
        "named-wrongly-json-array.jsonl": b"[\n" + _GOOD + b",\n" + _GOOD + b"\n]\n",
        "named-wrongly-csv.jsonl": b"role,content\nuser,Hello\n",
        "lines-end-with-cr-alone.jsonl": _GOOD + b"\r" + _GOOD + b"\r",
        "lines-cut-at-the-end.jsonl": _GOOD + b"\r\n" + _GOOD[:50],
        "lines-nul-at-the-end.jsonl": _GOOD + b"\n" + bytes(100),
        "encoding-bom-and-no-json.jsonl": b"\xef\xbb\xbf{x}\n" + _GOOD,
        "encoding-bom-twice.jsonl": b"\xef\xbb\xbf\xef\xbb\xbf" + _GOOD + b"\n" + _GOOD,
    }


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _with_checksum() -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(_LINES)


def _around(line: bytes) -> bytes:
    return _GOOD + b"\n\n" + line + b"\n" + _GOOD + b"\n"


def _json(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode()


def _tools(count: int) -> list[dict[str, Any]]:
    return [{"name": f"tool_{n}", "parameters": {}} for n in range(count)]


def _with_tools(count: int) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(_GOOD)
    return row | {"tools": _tools(count)}


def _in_text(count: int) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(_GOOD)
    text = f"<tools>{json.dumps(_tools(count))}</tools>"
    return {"messages": [{"role": "system", "content": text}, *row["messages"]]}


if __name__ == "__main__":
    for name, content in files().items():
        (_HERE / name).write_bytes(content)
