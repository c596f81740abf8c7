"""Rows that are longer than the model may be trained on: dropped, trimmed or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.config import Settings
from job.dataset import ChatFormat, DataRejected, PrepareOptions, Sample
from tests.dataset.places import place
from tests.dataset.preparing import BAD, ROWS, Prepare, long_row, options
from tests.dataset.standin import chat_row, data_file, row


def test_overlong_rows_are_dropped_and_told(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS, long_row(40))
    data = prepare([file], chatml, options())
    assert data.report.counts["overlong_dropped"] == 1
    [example] = data.report.dropped.examples
    assert (example.uri, example.line) == (str(path), 61)
    assert "FORGE_MAX_SEQ_LENGTH is 512" in example.detail
    assert data.report.lengths is not None
    assert data.report.lengths.max > 512
    assert max(len(sample.input_ids) for sample in data.train) <= 512


def test_overlong_rows_fail_where_they_may_not_be(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS, long_row(40), BAD)
    with pytest.raises(DataRejected) as error:
        prepare([file], chatml, options(overlong_rows="fail"))
    assert [problem.where for problem in error.value.problems] == [f"{path}:62", f"{path}:61"]


@pytest.mark.parametrize("wanted", [256, 512, 4096])
def test_what_limits_the_length_is_named(
    wanted: int, prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    """To raise the setting above the model's positions would change nothing."""
    settings = Settings(
        run_id="a",
        dataset_uri=str(path),
        output_uri="/out",
        max_seq_length=wanted,
        overlong_rows="fail",
    )
    changes = PrepareOptions.from_settings(settings, 512)
    with pytest.raises(DataRejected) as error:
        prepare([data_file(path, *ROWS, long_row(40))], chatml, changes)
    told = str(error.value)
    positions = wanted > 512
    assert ("the model has 512 positions" in told) == positions
    assert ("take a model with more positions" in told) == positions
    assert (f"FORGE_MAX_SEQ_LENGTH is {wanted}" in told) != positions


def whole(prepare: Prepare, chat: ChatFormat, path: Path, turns: int) -> Sample:
    return prepare([data_file(path, long_row(turns))], chat, options(eval_fraction=0)).train[0]


def test_trimmed_rows_are_the_longest_conversation_that_fits(
    prepare: Prepare, chatml: ChatFormat, path: Path, tmp_path: Path
) -> None:
    three = whole(prepare, chatml, tmp_path / "three.jsonl", 3)
    four = whole(prepare, chatml, tmp_path / "four.jsonl", 4)
    file = data_file(path, long_row(6))
    for limit in (len(three.input_ids), len(four.input_ids) - 1):
        changes = options(overlong_rows="trim_turns", max_seq_length=limit, eval_fraction=0)
        data = prepare([file], chatml, changes)
        assert data.train[0].input_ids.tolist() == three.input_ids.tolist()
        assert data.train[0].labels.tolist() == three.labels.tolist()
        assert (data.report.trimmed.count, data.report.counts["train"]) == (1, 1)
        assert "6 of 12 turns stay" in data.report.trimmed.examples[0].detail


def test_a_trimmed_row_that_is_held_out_has_the_turns_that_stay(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    changes = options(overlong_rows="trim_turns", max_seq_length=200, eval_fraction=0.999)
    rows = [chat_row(f"q{n}", "x") for n in range(3000)]
    trained = next(n for n in range(3000) if place(row(*rows[n]["messages"])) >= 0.999)
    data = prepare([data_file(path, long_row(6), rows[trained])], chatml, changes)
    [kept] = data.evaluation_rows
    assert len(kept.messages) < 12
    assert kept.messages[-1]["role"] == "assistant"


def test_a_first_answer_that_does_not_fit_is_dropped(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS, chat_row("Hello", "word " * 600))
    data = prepare([file], chatml, options(overlong_rows="trim_turns"))
    assert (data.report.trimmed.count, data.report.counts["overlong_dropped"]) == (0, 1)
