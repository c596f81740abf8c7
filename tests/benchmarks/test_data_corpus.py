"""Generated rows: the same bytes every time, of the shape they are called, and all valid."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from benchmarks.data.corpus import DIALECTS, SHAPES, Corpus, write
from benchmarks.data.text import WORDS, Vocabulary
from job.dataset import Row, read_rows
from tests.dataset.standin import fetched

_TEXT = "Please find me the best rate for three nights in Oslo , from $100 to 250.50 (at most)."


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    return Vocabulary.of(
        [_TEXT, *(f"word{chr(97 + n % 26)}{n} alpha{chr(97 + n)}" for n in range(26))]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def system_of(row: dict[str, Any]) -> str:
    return json.dumps([row.get("tools"), row["messages"][0]["content"]])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_row_is_valid_and_warns_of_nothing(
    words: Vocabulary, path: Path, shape: str, dialect: str
) -> None:
    count = write(Corpus(shape, dialect, 0.3), words, path)
    found = list(read_rows([fetched(path)]))
    assert len(found) == count == len(rows_of(path))
    for row in found:
        assert isinstance(row, Row), row
        assert not row.warnings
        assert row.dialect == dialect
        roles = [message["role"] for message in row.messages]
        assert roles == ["system", "user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_distinct_rows_share_no_turn(words: Vocabulary, path: Path, dialect: str) -> None:
    write(Corpus("distinct", dialect, 0.3), words, path)
    rows = rows_of(path)
    assert len({system_of(row) for row in rows}) == len(rows)
    for turn in range(1, 5):
        assert len({json.dumps(row["messages"][turn]) for row in rows}) == len(rows)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_shared_rows_have_one_of_20_system_turns(
    words: Vocabulary, path: Path, dialect: str
) -> None:
    write(Corpus("shared", dialect, 0.5), words, path)
    rows = rows_of(path)
    systems = {system_of(row) for row in rows}
    assert len(systems) == 20 < len(rows) / 2
    tools = {len(re.findall(r'\\*"parameters\\*"', system)) for system in systems}
    assert (min(tools), max(tools)) == (5, 10)
    assert len({row["messages"][1]["content"] for row in rows}) == len(rows)


def test_the_seed_decides_every_byte(words: Vocabulary, tmp_path: Path) -> None:
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(Corpus("distinct", "hermes", 0.1, seed), words, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def test_a_larger_file_begins_with_the_smaller(words: Vocabulary, tmp_path: Path) -> None:
    for name, size in (("small", 0.1), ("large", 0.2)):
        write(Corpus("shared", "hermes", size), words, tmp_path / name)
    small, large = ((tmp_path / name).read_bytes() for name in ("small", "large"))
    assert large.startswith(small)
    assert 0.1e6 <= len(small) < 0.11e6
    assert 0.2e6 <= len(large) < 0.21e6


def test_memory_does_not_grow_with_the_file(words: Vocabulary, path: Path) -> None:
    peaks = []
    for size in (0.2, 1.0):
        tracemalloc.start()
        write(Corpus("distinct", "hermes", size), words, path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_words_come_as_often_as_in_the_prompts() -> None:
    import random

    words = Vocabulary.of(["yes " * 900 + "no " * 100 + "<tool_call> naïve"])
    assert sorted(words.words) == ["no", "yes"]
    drawn = words.text(random.Random(0), 3000).split()
    assert 5 < drawn.count("yes") / drawn.count("no") < 15
    assert sum(word.isdecimal() for word in drawn) > 100


def test_only_the_most_frequent_words_are_kept() -> None:
    texts = [f"rare{n} common{n % WORDS}" for n in range(WORDS * 2)]
    assert set(Vocabulary.of(texts).words) == {f"common{n}" for n in range(WORDS)}
