"""Lines of a data file, plain or compressed, in bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

import zstandard

from job.dataset.source.fetch import DataFile
from job.errors import DataError, Problem

BOM: Final = b"\xef\xbb\xbf"
"""The byte-order mark that some editors write before UTF-8."""

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Longer lines are cut and marked: no conversation that fits a model comes near."""

_PLAIN_READ: Final = 256 * 1024
_WINDOW: Final = 128 * 1024 * 1024
"""Of zstd, as much as its own tool takes unasked."""
_ZSTD_READ: Final = 4096
"""Small, because all it decompresses to is in memory at once (a block may hold 128 KiB)."""


class Line(NamedTuple):
    """One line without its line end."""

    number: int
    """Counted from 1."""
    data: bytes
    cut: bool = False
    """The line was longer than allowed; `data` is its beginning."""


def read_lines(file: DataFile, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Every line of `file`, blank ones too; split at '\\n' only, a '\\r' before it removed, and a
    byte-order mark at the start of the file.

    Raises `DataError` where a compressed stream is damaged or ends in the middle.
    """
    number = 0
    try:
        for line in _split(_chunks(file), max_bytes):
            yield line if number else line._replace(data=line.data.removeprefix(BOM))
            number = line.number
    except EOFError as error:
        raise _damaged(file, number, "ends in the middle") from error
    except _WindowTooLarge as error:
        raise DataError(
            Problem(file.source.uri, f"{error}", "compress it without --long")
        ) from error
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise _damaged(file, number, f"is damaged ({error})") from error


def _damaged(file: DataFile, lines: int, what: str) -> DataError:
    uri = file.source.uri
    kind = "zstd" if uri.endswith(".zst") else "gzip"
    return DataError(
        Problem(
            f"{uri}:{lines + 1}",
            f"the {kind} stream {what}, after {lines} whole lines",
            "upload the file again",
        )
    )


class _WindowTooLarge(Exception):
    """A zstd frame that takes more memory than a reader should give it."""


def _chunks(file: DataFile) -> Iterator[bytes]:
    name = file.source.uri
    with file.path.open("rb") as raw:
        if name.endswith(".gz"):
            if not raw.read(1):  # as an empty .zst: not even an empty stream has no bytes
                raise EOFError
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) as unzipped:
                # read1 gives what there is before it says that the rest is missing.
                while chunk := unzipped.read1(_PLAIN_READ):
                    yield chunk
        elif name.endswith(".zst"):
            yield from _zstd_chunks(raw)
        else:
            while chunk := raw.read(_PLAIN_READ):
                yield chunk


def _zstd_chunks(raw: BinaryIO) -> Iterator[bytes]:
    """zstandard's own reader takes a cut stream for a whole one, so frames are followed here."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame = decompressor.decompressobj()
    while piece := raw.read(_ZSTD_READ):
        while piece:
            if frame.eof:
                frame = decompressor.decompressobj()
            try:
                yield frame.decompress(piece)
            except zstandard.ZstdError as error:
                if "too much memory" not in str(error):
                    raise
                most = f"more than {_WINDOW // 2**20} MiB"
                raise _WindowTooLarge(f"takes {most} of memory to be decompressed") from error
            piece = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError


def _split(chunks: Iterator[bytes], max_bytes: int) -> Iterator[Line]:
    number = 1
    pending: list[bytes] = []
    size = 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            if pending or len(piece) > max_bytes or piece.endswith(b"\r"):
                yield _line(number, [*pending, piece], size, max_bytes)
                pending, size = [], 0
            else:
                yield Line(number, piece)
            number += 1
        if rest:
            if size <= max_bytes:  # what comes after is only counted
                pending.append(rest)
            size += len(rest)
    if pending:
        yield _line(number, pending, size, max_bytes)


def _line(number: int, pieces: list[bytes], pending_size: int, max_bytes: int) -> Line:
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if max(len(data), pending_size) > max_bytes:
        return Line(number, data[:max_bytes], cut=True)
    return Line(number, data.removesuffix(b"\r"))
