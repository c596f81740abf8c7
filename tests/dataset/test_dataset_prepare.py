"""From files to samples and a report in which every row is found again."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from job.config import Settings
from job.dataset import (
    ChatFormat,
    DataFile,
    DataRejected,
    PreparedData,
    PrepareOptions,
    RejectedRow,
    Sample,
    check_only,
)
from job.dataset import prepare as prepare_in
from job.dataset.review.tally import REPORTED
from job.errors import DataError
from tests.dataset.places import place
from tests.dataset.standin import (
    PLAIN_CHATML,
    chat_row,
    data_file,
    model_folder,
    row,
    tokenizer,
    turn,
)

BAD = b'{"messages": []}'
ROWS = [chat_row(f"question {n}", f"answer {n}") for n in range(60)]


Prepare = Callable[[list[DataFile], ChatFormat, PrepareOptions], PreparedData]


def options(**changes: Any) -> PrepareOptions:
    return PrepareOptions(**({"max_seq_length": 512} | changes))


def texts(samples: Sequence[Sample]) -> set[str]:
    return {tokenizer().decode(sample.input_ids.tolist()) for sample in samples}


def long_row(turns: int) -> dict[str, Any]:
    messages = []
    for n in range(turns):
        messages += [turn("user", f"question {n}"), turn("assistant", "word " * 20)]
    return {"messages": messages}


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Each call with a folder of its own."""
    numbers = itertools.count()

    def call(files: list[DataFile], chat: ChatFormat, options: PrepareOptions) -> PreparedData:
        return prepare_in(files, chat, options, tmp_path / f"prepared-{next(numbers)}")

    return call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


@pytest.fixture
def file(path: Path) -> DataFile:
    return data_file(path, *ROWS)


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


def test_with_fail_every_invalid_row_is_told(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS[:2], BAD, b"{", ROWS[2], chat_row("", ""))
    with pytest.raises(DataRejected) as error:
        prepare([file], chatml, options())
    assert isinstance(error.value, DataError)
    assert error.value.exit_code == 65
    assert [problem.where for problem in error.value.problems] == [
        f"{path}:3",
        f"{path}:4",
        f"{path}:6",
    ]
    assert error.value.report.counts["invalid"] == 3
    quarantine = error.value.report.quarantine
    assert quarantine is not None
    assert quarantine.read_bytes().startswith(BAD + b"\n{\n")


def test_a_hundred_invalid_rows_are_told_in_fifty_lines(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    with pytest.raises(DataRejected) as error:
        prepare([data_file(path, *[BAD] * 100)], chatml, options())
    assert len(error.value.problems) == 100
    assert str(error.value).startswith("100 problems:")
    assert str(error.value).endswith("… and 50 more")


def test_reading_ends_where_nobody_would_read_on(path: Path) -> None:
    file = data_file(path, *[BAD] * (REPORTED + 10))
    with pytest.raises(DataRejected) as error:
        check_only([file], options())
    assert len(error.value.problems) == REPORTED


def test_with_skip_invalid_rows_are_quarantined(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS, BAD)
    data = prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.02))
    assert data.report.counts["invalid"] == 1
    assert data.report.rows == 61
    [bad] = data.report.rejected
    assert isinstance(bad, RejectedRow)
    assert data.report.quarantine is not None
    assert data.report.quarantine.read_bytes() == BAD + b"\n"
    [told] = data.report.as_dict()["rejected"]
    assert told == {
        "uri": str(path),
        "line": 61,
        "problems": [
            {"path": "messages", "reason": "is empty", "hint": "a row is one conversation"}
        ],
    }


def test_with_skip_too_many_invalid_rows_fail(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    file = data_file(path, *ROWS[:9], BAD)
    with pytest.raises(DataRejected, match="1 of 10 rows are invalid") as error:
        prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.09))
    assert [problem.where for problem in error.value.problems] == ["data", f"{path}:10"]
    prepare([file], chatml, options(invalid_rows="skip", max_invalid_fraction=0.1))


def test_a_row_that_the_template_refuses_is_invalid(
    prepare: Prepare, tmp_path: Path, path: Path
) -> None:
    chat = ChatFormat.load(model_folder(tmp_path / "model", PLAIN_CHATML))
    tools = [{"name": "weather"}]
    file = data_file(path, *ROWS, chat_row("Hello", "Hi.", tools=tools))
    with pytest.raises(DataRejected, match=f"{path}:61: tools: the chat template ignores"):
        prepare([file], chat, options())
    data = prepare([file], chat, options(invalid_rows="skip", max_invalid_fraction=0.1))
    assert data.report.quarantine is not None
    assert json.loads(data.report.quarantine.read_bytes())["tools"] == tools
    assert data.report.counts["invalid"] == 1


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


def test_duplicates_are_told_and_kept(prepare: Prepare, chatml: ChatFormat, path: Path) -> None:
    data = prepare([data_file(path, *ROWS, ROWS[7], ROWS[7])], chatml, options())
    assert data.report.duplicates.count == 2
    assert [example.line for example in data.report.duplicates.examples] == [61, 62]
    assert data.report.rows == 62


@pytest.mark.parametrize(
    ("rows", "changes", "reason"),
    [
        ([], {}, "holds no rows"),
        ([b"", b"  "], {}, "holds no rows"),
        (ROWS, {"max_seq_length": 16}, "no row is left to train on"),
        (ROWS, {"eval_fraction": 0.99999}, "no row is left to train on"),
        ([BAD], {"invalid_rows": "skip", "max_invalid_fraction": 1}, "no row is left to train on"),
    ],
)
def test_data_with_nothing_to_train_on(
    prepare: Prepare,
    rows: list[Any],
    changes: dict[str, Any],
    reason: str,
    chatml: ChatFormat,
    path: Path,
) -> None:
    with pytest.raises(DataRejected, match=reason):
        prepare([data_file(path, *rows)], chatml, options(**changes))


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
        eval_fraction=0.3,
        eval_max_rows=7,
    )
    assert PrepareOptions.from_settings(settings) == PrepareOptions(
        max_seq_length=99,
        loss_on="all",
        invalid_rows="skip",
        max_invalid_fraction=0.5,
        overlong_rows="fail",
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


def test_a_second_attempt_refuses_what_the_first_refused(
    chatml: ChatFormat, path: Path, tmp_path: Path
) -> None:
    file = data_file(path, *ROWS, long_row(40), BAD)
    told = []
    for _ in range(2):
        with pytest.raises(DataRejected) as error:
            prepare_in([file], chatml, options(overlong_rows="fail"), tmp_path / "prepared")
        told.append((error.value.problems, error.value.report))
    assert told[0] == told[1]


def test_hardly_any_trained_token_is_refused(
    prepare: Prepare, chatml: ChatFormat, file: DataFile
) -> None:
    ratio = prepare([file], chatml, options()).report.supervised_ratio
    assert ratio is not None
    prepare([file], chatml, options(min_supervised_ratio=ratio))
    with pytest.raises(DataRejected, match="FORGE_MIN_SUPERVISED_RATIO is 99") as error:
        prepare([file], chatml, options(min_supervised_ratio=0.99))
    assert error.value.report.preview is not None  # the page says where the tokens go


def test_one_id_for_all_rows_is_named_as_the_reason(
    prepare: Prepare, chatml: ChatFormat, path: Path
) -> None:
    rows = [one | {"id": "mcp"} for one in [*ROWS, chat_row("one more", "x")]]
    with pytest.raises(DataRejected, match="61 rows are tied together by their 'id'"):
        prepare([data_file(path, *rows)], chatml, options(eval_fraction=0.999))


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
