"""The pass over the data under odd conditions: absurd rows, a stop in the middle, two threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from job.choices import LossOn
from job.dataset import (
    ChatFormat,
    RejectedRow,
    Row,
    RowProblem,
    prepare,
    read_rows,
)
from job.dataset import scan as scanning
from job.dataset.review.tally import Tally
from job.dataset.tokens.samples import Encoded, Rendered
from job.dataset.tokens.template import ChatTemplate
from job.errors import Preempted
from tests.dataset.preparing import options
from tests.dataset.standin import chat_row, data_file, turn
from tests.dataset.standin_families import chat_format

ROWS = [chat_row(f"question {n}", f"answer {n}") for n in range(40)]


@pytest.mark.parametrize(
    ("many", "words"),
    [
        pytest.param(1500, 50, id="more characters than the longest tokens hold"),
        pytest.param(800, 2, id="told by its tokens alone"),
    ],
)
def test_every_turn_of_a_row_that_is_too_long_is_not_rendered(
    many: int, words: int, chatml: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all turns before it each, these 1,500 turns would be half a gigabyte of text."""
    turns = [turn(role, "word " * words) for _ in range(many) for role in ("user", "assistant")]
    rendered: list[int] = []
    render_all = ChatTemplate.render_all

    def counting(self: ChatTemplate, texts: Sequence[Any], *rest: Any, **more: Any) -> Any:
        rendered.append(sum(map(len, texts)))
        return render_all(self, texts, *rest, **more)

    monkeypatch.setattr(ChatTemplate, "render_all", counting)
    file = data_file(tmp_path / "data.jsonl", *ROWS, {"messages": turns})
    options_ = options(max_seq_length=256 if words > 2 else 8192)
    report = prepare([file], chatml, options_, tmp_path / "prepared").report
    assert report.dropped.count == 1
    assert report.lengths is not None
    assert report.lengths.max > 10_000  # it was measured all the same
    assert sum(rendered) < 2 * many + 40 * 6


def test_no_more_prompts_are_held_than_memory_has_room_for(
    chatml: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 rows with the same tools whose prompts come to 60 million characters."""
    turns = [turn(role, "word " * 4) for _ in range(150) for role in ("user", "assistant")]
    file = data_file(tmp_path / "data.jsonl", *[{"messages": turns}] * 60)
    held: list[int] = []
    signs: list[None] = []
    render_all = ChatTemplate.render_all

    def measuring(self: ChatTemplate, *args: Any, **more: Any) -> Any:
        texts = render_all(self, *args, **more)
        held.append(sum(len(str(text)) for text in texts))
        return texts

    rows = [row for row in read_rows([file]) if isinstance(row, Row)]
    expected = chatml.render(rows[0])
    monkeypatch.setattr(ChatTemplate, "render_all", measuring)
    assert chatml.render_all(rows, 10**6, lambda: signs.append(None)) == [expected] * 60
    assert max(held) < 20_000_000 < sum(held)
    assert len(signs) > 2


def test_large_rows_are_trained_like_others(chatml: ChatFormat, tmp_path: Path) -> None:
    turns = [turn(role, "word " * 300) for _ in range(30) for role in ("user", "assistant")]
    file = data_file(tmp_path / "data.jsonl", *ROWS, {"messages": turns})
    wanted = options(max_seq_length=10**6, eval_fraction=0)
    data = prepare([file], chatml, wanted, tmp_path / "prepared")
    expected = chatml.render(Row("", 1, tuple(turns)))
    [sample] = chatml.encode([expected], "assistant")
    assert len(expected.spans) == 30
    assert data.train[40].labels.tolist() == sample.labels.tolist()
    half = len(sample.input_ids) // 2
    shorter = options(max_seq_length=half, eval_fraction=0, overlong_rows="trim_turns")
    trimmed = prepare([file], chatml, shorter, tmp_path / "shorter")
    length = len(trimmed.train[40].input_ids)
    assert half * 0.9 < length <= half
    assert trimmed.train[40].input_ids.tolist() == sample.input_ids[:length].tolist()


def test_a_stop_does_not_wait_for_the_tokenizer(
    chatml: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, let_go = threading.Event(), threading.Event()
    encode = ChatFormat.encode

    def slow(self: ChatFormat, batch: Sequence[Rendered], loss_on: LossOn) -> Encoded:
        busy.set()
        let_go.wait(60)
        return encode(self, batch, loss_on)

    def stopped(files: Any) -> Iterator[Row]:
        yield from (row for row in read(files) if isinstance(row, Row))
        busy.wait(60)
        raise Preempted("SIGTERM")

    read = read_rows
    monkeypatch.setattr(ChatFormat, "encode", slow)
    monkeypatch.setattr(scanning, "read_rows", stopped)
    monkeypatch.setattr(scanning, "_BATCH_ROWS", 10)
    file = data_file(tmp_path / "data.jsonl", *ROWS[:20])
    try:
        with pytest.raises(Preempted):
            prepare([file], chatml, options(max_seq_length=64), tmp_path / "prepared")
        assert not let_go.is_set()
        assert not (tmp_path / "prepared" / "store" / "complete.json").exists()
    finally:
        let_go.set()


def test_two_threads_count_as_one() -> None:
    tally, row = Tally(), Row("f", 1, ())
    refused = RejectedRow("f", 1, b"", (RowProblem("messages", "is empty"),))

    def both(_: int) -> None:
        tally.refuse(refused)
        tally.warn(row, RowProblem("messages[3].content", "holds 'x'"))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(both, range(4000)))
    assert tally.refused == 4000
    [(kind, counted)] = tally.warnings.items()
    assert (kind, counted.count) == ("messages.content: holds …", 4000)


def test_no_secret_is_in_the_kind_of_a_warning() -> None:
    tally, secret = Tally(), "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6"
    tally.warn(Row("f", 1, ()), RowProblem(f"arguments.{secret}", "is in no schema"))
    assert list(tally.warnings) == ["arguments.***: is in no schema"]


@pytest.mark.parametrize(("family", "told"), [("deepseek-r1", 40), ("qwen2.5", 0)])
def test_answers_that_begin_otherwise_than_in_serving_are_told(
    family: str, told: int, tmp_path: Path
) -> None:
    """DeepSeek-R1's own template has every answer begin with a thought."""
    file = data_file(tmp_path / "data.jsonl", *ROWS)
    report = prepare([file], chat_format(family), options(), tmp_path / "prepared").report
    assert sum(found.count for found in report.warnings.values()) == told
    assert all("begin with …, as the chat template" in kind for kind in report.warnings)
