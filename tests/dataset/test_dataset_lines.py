from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from job.dataset.source.lines import Line, _split, read_lines
from job.errors import DataError
from tests.dataset.standin import fetched

WHOLE = {".jsonl": lambda data: data, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}
# Random, so that a compressed file has many blocks to be cut between.
DATA = b"".join(random.Random(1).randbytes(300).hex().encode() + b"\n" for _ in range(2000))


@pytest.mark.parametrize("suffix", WHOLE)
def test_plain_and_compressed_files_have_the_same_lines(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(WHOLE[suffix](DATA))
    lines = list(read_lines(fetched(path)))
    assert [line.data for line in lines] == DATA.splitlines()
    assert [line.number for line in lines] == list(range(1, 2001))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_files_put_together_from_several_streams(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(WHOLE[suffix](b"a\nb") + WHOLE[suffix](b"c\nd\n"))
    assert [line.data for line in read_lines(fetched(path))] == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("share", [0.0005, 0.5, 0.99])
def test_a_stream_that_ends_in_the_middle(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    data = WHOLE[suffix](DATA)
    path.write_bytes(data[: int(len(data) * share)])
    read: list[Line] = []
    with pytest.raises(DataError, match="ends in the middle") as error:
        read.extend(read_lines(fetched(path)))
    problem = error.value.problems[0]
    assert problem.where.startswith(f"{path}:")
    assert f"after {problem.where.rpartition(':')[2]}" not in problem.found
    assert len(read) < 2000


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("spoil", [lambda data: b'{"a": 1}\n', lambda data: data + b"rest"])
def test_a_stream_that_is_none(suffix: str, spoil: object, tmp_path: Path) -> None:
    assert callable(spoil)
    path = tmp_path / f"data{suffix}"
    path.write_bytes(spoil(WHOLE[suffix](b"a\n")))
    with pytest.raises(DataError, match=r"is damaged|ends in the middle"):
        list(read_lines(fetched(path)))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_a_compressed_file_without_a_byte_is_no_stream(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="ends in the middle, after 0 whole lines"):
        list(read_lines(fetched(path)))
    path.write_bytes(WHOLE[suffix](b""))
    assert not list(read_lines(fetched(path)))


@pytest.mark.parametrize(("window_log", "fits"), [(27, True), (30, False)])
def test_a_stream_that_takes_too_much_memory(window_log: int, fits: bool, tmp_path: Path) -> None:
    """As `zstd --long=30` writes it: nothing is damaged."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "data.jsonl.zst"
    path.write_bytes(stream.compress(b"a\n") + stream.flush())
    if fits:
        assert [line.data for line in read_lines(fetched(path))] == [b"a"]
        return
    with pytest.raises(DataError, match="takes more than 128 MiB of memory") as error:
        list(read_lines(fetched(path)))
    assert "damaged" not in str(error.value)
    assert "--long" in error.value.problems[0].hint


def test_how_far_a_damaged_stream_was_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b"a\nb\n") + gzip.compress(b"c\n")[:-4])
    with pytest.raises(DataError, match="after 3 whole lines") as error:
        list(read_lines(fetched(path)))
    assert error.value.problems[0].where == f"{path}:4"


def test_an_absurd_line_is_cut_and_the_next_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"a\n" + b"x" * 3_000_000 + b"\nb\n" + b"y" * 3_000_000)
    lines = list(read_lines(fetched(path), max_bytes=1000))
    assert [(line.number, line.data[:1], len(line.data), line.cut) for line in lines] == [
        (1, b"a", 1, False),
        (2, b"x", 1000, True),
        (3, b"b", 1, False),
        (4, b"y", 1000, True),
    ]


@given(chunks=st.lists(st.text("a\n\r").map(str.encode)), limit=st.integers(1, 4))
def test_lines_do_not_depend_on_how_they_are_read(chunks: list[bytes], limit: int) -> None:
    whole = b"".join(chunks)
    expected = whole.split(b"\n")
    expected = expected if expected[-1] else expected[:-1]
    lines = list(_split(iter(chunks), limit))
    assert [line.number for line in lines] == list(range(1, len(expected) + 1))
    for line, data in zip(lines, expected, strict=True):
        assert line.cut == (len(data) > limit)
        assert line.data == (data[:limit] if line.cut else data.removesuffix(b"\r"))
