"""From files to samples and a report in which every row is found again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from job.config import Settings
from job.dataset import (
    ChatFormat,
    DataFile,
    DataRejected,
    PreparedData,
    PrepareOptions,
    Sample,
    check_only,
)
from job.dataset import prepare as prepare_in
from tests import tiny
from tests.dataset.places import place
from tests.dataset.preparing import BAD, ROWS, Prepare, long_row, options, texts
from tests.dataset.standin import chat_row, data_file, row, tokenizer, turn


def test_every_row_is_on_one_side_by_its_place(
    prepare: Prepare, file: DataFile, chatml: ChatFormat
) -> None:
    data = prepare([file], chatml, options())
    held_out = [
        n
        for n in range(60)
        if place(row(turn("user", f"question {n}"), turn("assistant", "x"))) < 0.2
    ]
    assert data.report.counts == {
        "train": 60 - len(held_out),
        "evaluation": len(held_out),
        "held_out_unused": 0,
        "invalid": 0,
        "overlong_dropped": 0,
    }
    questions = {item.messages[0]["content"] for item in data.evaluation_rows}
    assert questions == {f"question {n}" for n in held_out}
    assert not texts(data.train) & texts(data.evaluation)
    assert data.report.rows == data.report.files[0].rows == 60


def test_neither_order_nor_growth_moves_a_row(
    prepare: Prepare, file: DataFile, chatml: ChatFormat, tmp_path: Path
) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    more = [chat_row(f"more {n}", "x") for n in range(30)]
    before = prepare([file], chatml, options())
    other = prepare([data_file(tmp_path / "other.jsonl", *more, *shuffled)], chatml, options())
    assert texts(before.train) <= texts(other.train)
    assert texts(before.evaluation) <= texts(other.evaluation)
    again = prepare([data_file(tmp_path / "again.jsonl", *shuffled)], chatml, options())
    assert ids(again.evaluation) == ids(before.evaluation)


def ids(samples: Sequence[Sample]) -> list[list[int]]:
    return [sample.input_ids.tolist() for sample in samples]


def test_training_keeps_the_order_of_the_data(
    prepare: Prepare, file: DataFile, chatml: ChatFormat
) -> None:
    data = prepare([file], chatml, options(eval_fraction=0))
    assert len(data.train) == 60
    decoded = [tokenizer().decode(sample.input_ids.tolist()) for sample in data.train]
    assert all(f"question {n}\n" in text for n, text in enumerate(decoded))
    assert len(data.evaluation) == 0
    assert data.evaluation_rows == []


def test_held_out_rows_over_the_cap_are_neither_trained_nor_evaluated(
    prepare: Prepare, file: DataFile, chatml: ChatFormat
) -> None:
    everything = prepare([file], chatml, options())
    capped = prepare([file], chatml, options(eval_max_rows=3))
    assert ids(capped.evaluation) == ids(everything.evaluation)[:3]
    assert texts(capped.train) == texts(everything.train)
    unused = len(everything.evaluation) - 3
    assert capped.report.counts["held_out_unused"] == unused > 0


def test_the_report_counts_tokens(prepare: Prepare, file: DataFile, chatml: ChatFormat) -> None:
    data = prepare([file], chatml, options())
    lengths = sorted(len(sample.input_ids) for sample in [*data.train, *data.evaluation])
    report = data.report
    assert report.lengths is not None
    assert (report.lengths.min, report.lengths.max) == (lengths[0], lengths[-1])
    assert report.lengths.mean == pytest.approx(sum(lengths) / 60, abs=0.05)
    assert report.lengths.p50 in lengths
    assert report.tokens == sum(len(sample.input_ids) for sample in data.train)
    assert report.supervised_tokens == sum(sample.supervised for sample in data.train)
    assert report.supervised_ratio == pytest.approx(report.supervised_tokens / report.tokens)


def test_duplicates_are_told_and_kept(prepare: Prepare, chatml: ChatFormat, path: Path) -> None:
    data = prepare([data_file(path, *ROWS, ROWS[7], ROWS[7])], chatml, options())
    assert data.report.duplicates.count == 2
    assert [example.line for example in data.report.duplicates.examples] == [61, 62]
    assert data.report.rows == 62


def test_held_out_calls_are_counted_once(prepare: Prepare, chatml: ChatFormat, path: Path) -> None:
    """The gate judges by them, and by no copy of them."""
    rows = [{name: row[name] for name in row if name != "id"} for row in tiny.rows(12)]
    once = prepare([data_file(path, *rows)], chatml, options(eval_fraction=0.5)).report
    copied = prepare([data_file(path, *rows * 5)], chatml, options(eval_fraction=0.5)).report
    assert copied.held_out_calls == once.held_out_calls > 0
    assert (once.held_out_repeats, copied.held_out_repeats) == (0, 4 * once.held_out_calls)
    assert copied.as_dict()["held_out_repeats"] == copied.held_out_repeats
    assert copied.counts["evaluation"] == 5 * once.counts["evaluation"]


def test_without_a_tokenizer_all_but_the_lengths_is_checked(
    prepare: Prepare, file: DataFile, chatml: ChatFormat
) -> None:
    with_tokenizer = prepare([file], chatml, options(eval_max_rows=4)).report
    report = check_only([file], options(eval_max_rows=4))
    assert report.counts == with_tokenizer.counts
    assert report.files == with_tokenizer.files
    assert report.held_out_calls == with_tokenizer.held_out_calls
    assert (report.lengths, report.tokens, report.supervised_ratio) == (None, None, None)
    with pytest.raises(DataRejected, match="holds no rows"):
        check_only([], options())


def test_rows_by_file(prepare: Prepare, chatml: ChatFormat, tmp_path: Path) -> None:
    files = [data_file(tmp_path / f"{n}.jsonl", *ROWS[: n * 20]) for n in (1, 2)]
    report = prepare(files, chatml, options()).report
    assert [item.rows for item in report.files] == [20, 40]


def test_the_report_is_json_and_one_line(
    prepare: Prepare, file: DataFile, chatml: ChatFormat
) -> None:
    report = prepare([file], chatml, options()).report
    artifacts = report.artifacts()
    assert isinstance(artifacts["report.json"], bytes)
    document = json.loads(artifacts["report.json"])
    assert document == orjson.loads(orjson.dumps(report.as_dict()))
    assert document["files"][0]["uri"] == str(file.path)
    assert set(artifacts) == {"report.json", "mask-preview.html"}
    assert "\n" not in report.headline()
    assert report.headline().startswith(f"60 rows: {report.counts['train']} train, ")


def test_options_are_the_settings_of_the_run() -> None:
    settings = Settings(
        run_id="a",
        dataset_uri="/d.jsonl",
        output_uri="/out",
        max_seq_length=99,
        loss_on="all",
        invalid_rows="skip",
        max_invalid_fraction=0.5,
        overlong_rows="fail",
        min_supervised_ratio=0.1,
        eval_fraction=0.3,
        eval_max_rows=7,
    )
    assert PrepareOptions.from_settings(settings) == PrepareOptions(
        max_seq_length=99,
        loss_on="all",
        invalid_rows="skip",
        max_invalid_fraction=0.5,
        overlong_rows="fail",
        min_supervised_ratio=0.1,
        eval_fraction=0.3,
        eval_max_rows=7,
    )


def test_a_second_attempt_uses_the_tokens_of_the_first(
    chatml: ChatFormat, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = data_file(path, *ROWS, ROWS[7], long_row(40), BAD)
    skipping = options(invalid_rows="skip", max_invalid_fraction=0.1)
    folder = tmp_path / "prepared"
    first = prepare_in([file], chatml, skipping, folder)
    written = (folder / "store" / "ids").stat().st_mtime_ns
    second = prepare_in([file], chatml, skipping, folder)
    assert (folder / "store" / "ids").stat().st_mtime_ns == written
    assert second.report == first.report
    assert ids(second.train) == ids(first.train)
    assert ids(second.evaluation) == ids(first.evaluation)
    assert second.evaluation_rows == first.evaluation_rows
    prepare_in([file], chatml, replace(skipping, max_seq_length=400), folder)
    assert (folder / "store" / "ids").stat().st_mtime_ns != written


def test_secrets_reach_no_artifact(prepare: Prepare, chatml: ChatFormat, path: Path) -> None:
    secret = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6"
    bad = {"messages": [turn("user", secret), turn("assistant", "")], "token": secret}
    rows = [*ROWS, chat_row(f"my key is {secret}", f"Keep {secret}."), bad]
    data = prepare(
        [data_file(path, *rows)],
        chatml,
        options(invalid_rows="skip", max_invalid_fraction=0.1, eval_fraction=0),
    )
    for content in data.report.artifacts().values():
        data_of = content.read_bytes() if isinstance(content, Path) else content
        assert secret.encode() not in data_of
    assert any("GitHub" in notice for notice in data.report.notices())
    assert not any(secret in notice for notice in data.report.notices())


def test_more_rows_than_a_batch(prepare: Prepare, chatml: ChatFormat, path: Path) -> None:
    rows = [chat_row(f"q{n}", "x") for n in range(2500)]
    data: PreparedData = prepare([data_file(path, *rows)], chatml, options(eval_max_rows=9999))
    assert data.report.rows == 2500
    assert len(data.train) + len(data.evaluation) == 2500
