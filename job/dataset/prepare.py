"""The data stage: rows are read, checked, rendered, masked, measured and split, in one pass.

Nothing is cut or left out silently: every row is counted in the report under what became of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal

from job.config import Settings
from job.dataset.chat import ChatFormat
from job.dataset.encode import Rendered, Sample
from job.dataset.fetch import DataFile
from job.dataset.report import DataRejected, DataReport, problems_of
from job.dataset.row import RejectedRow, Row, RowProblem, RowRefused
from job.dataset.rows import read_rows
from job.dataset.split import LowestPlaces, content_hash, place
from job.dataset.tally import Tally
from job.errors import Problem

_BATCH: Final = 1000
"""Rows encoded at once: keeps every core busy, a few megabytes of text."""
_MOST_REFUSED: Final = 10_000
"""With `fail`, reading ends here: nobody reads a longer list."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """The settings that decide what becomes of a row; their names are those in `Settings`."""

    max_seq_length: int
    loss_on: Literal["assistant", "all"] = "assistant"
    invalid_rows: Literal["fail", "skip"] = "fail"
    max_invalid_fraction: float = 0.01
    overlong_rows: Literal["drop", "trim_turns", "fail"] = "drop"
    eval_fraction: float = 0.2
    eval_max_rows: int = 512

    @classmethod
    def from_settings(cls, settings: Settings, position_limit: int | None = None) -> PrepareOptions:
        """`position_limit` is the model's own: nothing longer can be trained on as it is."""
        wanted = settings.hyperparameters().max_seq_length
        return cls(
            max_seq_length=min(wanted, position_limit or wanted),
            loss_on=settings.loss_on,
            invalid_rows=settings.invalid_rows,
            max_invalid_fraction=settings.max_invalid_fraction,
            overlong_rows=settings.overlong_rows,
            eval_fraction=settings.eval_fraction,
            eval_max_rows=settings.eval_max_rows,
        )


@dataclass(frozen=True)
class EvaluationRow:
    """A held-out conversation, as tokens for the loss and as turns to generate answers for."""

    row: Row
    sample: Sample


@dataclass(frozen=True)
class PreparedData:
    """What training and evaluation get."""

    train: list[Sample]
    """In the order of the data."""
    held_out: list[EvaluationRow]
    """In the order of their place in the split; empty where nothing is held out."""
    report: DataReport

    @property
    def evaluation(self) -> list[Sample]:
        return [item.sample for item in self.held_out]

    @property
    def evaluation_rows(self) -> list[Row]:
        return [item.row for item in self.held_out]

    @property
    def quarantine(self) -> tuple[RejectedRow, ...]:
        """Rows that were skipped as invalid."""
        return self.report.rejected


def prepare(files: Sequence[DataFile], chat: ChatFormat, options: PrepareOptions) -> PreparedData:
    """Make samples of every row of `files`.

    Raises `DataRejected` (a `DataError`) with all that is wrong: invalid or overlong rows as the
    options judge them, no rows, none left to train on, no token with a label.
    """
    stage = _Stage(chat, options)
    rows = read_rows(files)
    while batch := list(islice(rows, _BATCH)):
        stage.add(batch)
        if options.invalid_rows == "fail" and len(stage.tally.rejected) >= _MOST_REFUSED:
            break
    report = stage.report(files)
    _judge(report, options, [*stage.overlong, *_nothing_trained(report, options)])
    return PreparedData(stage.train, stage.held_out.items(), report)


def check_only(files: Sequence[DataFile], options: PrepareOptions) -> DataReport:
    """All that can be said of the rows without a tokenizer. Raises `DataRejected`."""
    tally, train, held_out = Tally(), 0, 0
    for row in read_rows(files):
        tally.saw(row)
        if isinstance(row, Row):
            if place(row) < options.eval_fraction:
                held_out += 1
            else:
                train += 1
        elif options.invalid_rows == "fail" and len(tally.rejected) >= _MOST_REFUSED:
            break
    used = min(held_out, options.eval_max_rows)
    kept = {"train": train, "evaluation": used, "held_out_unused": held_out - used}
    report = tally.report(files, kept, options.max_seq_length, None)
    _judge(report, options, _nothing_trained(report, options))
    return report


class _Stage:
    """The state of one pass."""

    def __init__(self, chat: ChatFormat, options: PrepareOptions) -> None:
        self.tally = Tally()
        self.train: list[Sample] = []
        self.held_out = LowestPlaces[EvaluationRow](options.eval_max_rows)
        self.overlong: list[Problem] = []
        self._chat = chat
        self._options = options
        self._tokens = 0
        self._supervised = 0

    def add(self, batch: Sequence[Row | RejectedRow]) -> None:
        rendered = list(self._rendered(batch))
        samples = self._chat.encode([text for _, text in rendered], self._options.loss_on)
        for (row, text), sample in zip(rendered, samples, strict=True):
            self.tally.measured(len(sample.input_ids))
            self._add(row, text, sample)

    def report(self, files: Sequence[DataFile]) -> DataReport:
        held_out = self.held_out
        kept = {
            "train": len(self.train),
            "evaluation": len(held_out.items()),
            "held_out_unused": held_out.unused,
        }
        tokens = (self._tokens, self._supervised)
        return self.tally.report(files, kept, self._options.max_seq_length, tokens)

    def _rendered(self, batch: Iterable[Row | RejectedRow]) -> Iterator[tuple[Row, Rendered]]:
        for row in batch:
            self.tally.saw(row)
            if isinstance(row, Row):
                try:
                    yield row, self._chat.render(row)
                except RowRefused as refusal:
                    self.tally.refused(row.rejected(refusal.problem))

    def _add(self, row: Row, text: Rendered, sample: Sample) -> None:
        if len(sample.input_ids) > self._options.max_seq_length:
            fitting = self._shortened(row, text, len(sample.input_ids))
            if fitting is None:
                return
            row, sample = fitting
        if not sample.supervised:
            problem = RowProblem("messages", "no token of any assistant turn can be trained")
            self.tally.refused(row.rejected(problem))
        elif place(row) < self._options.eval_fraction:
            kept = EvaluationRow(replace(row, raw=b""), sample)
            self.held_out.add(place(row), content_hash(row), kept)
        else:
            self.train.append(sample)
            self._tokens += len(sample.input_ids)
            self._supervised += sample.supervised

    def _shortened(self, row: Row, text: Rendered, tokens: int) -> tuple[Row, Sample] | None:
        """The row and its sample as they fit, or `None` if the row is left out."""
        limit, policy = self._options.max_seq_length, self._options.overlong_rows
        found = f"has {tokens} tokens, FORGE_MAX_SEQ_LENGTH is {limit}"
        if policy == "fail":
            hint = "raise it, or set FORGE_OVERLONG_ROWS to drop or trim_turns"
            self.overlong.append(Problem(row.where, found, hint))
        if policy == "trim_turns" and (cut := self._trimmed(row, text)):
            turns = len(cut[0].messages)
            self.tally.trimmed(
                row,
                f"{found}; {turns} of {len(row.messages)} turns stay, "
                f"{len(cut[1].input_ids)} tokens",
            )
            return cut
        self.tally.dropped(row, found)
        return None

    def _trimmed(self, row: Row, text: Rendered) -> tuple[Row, Sample] | None:
        """The longest beginning that ends with an answer and fits."""
        turns = row.assistant_turns
        prefixes = [text.prefix(n) for n in range(1, len(turns))]
        samples = self._chat.encode(prefixes, self._options.loss_on)
        for index, sample in reversed(list(zip(turns, samples, strict=False))):
            if len(sample.input_ids) <= self._options.max_seq_length:
                return replace(row, messages=row.messages[: index + 1]), sample
        return None


def _judge(report: DataReport, options: PrepareOptions, others: Iterable[Problem]) -> None:
    """Raise `DataRejected` if the data may not be trained on."""
    problems = list(others)
    allowed = options.max_invalid_fraction * report.rows
    if options.invalid_rows == "fail":
        problems = [*problems_of(report.rejected), *problems]
    elif len(report.rejected) > allowed:
        share = f"{len(report.rejected)} of {report.rows} rows are invalid"
        limit = f"FORGE_MAX_INVALID_FRACTION allows {options.max_invalid_fraction:.2%}"
        problems = [Problem("data", f"{share}, {limit}"), *problems_of(report.rejected), *problems]
    if problems:
        raise DataRejected(problems, report)


def _nothing_trained(report: DataReport, options: PrepareOptions) -> Iterator[Problem]:
    counts = report.counts
    if not report.rows:
        names = ", ".join(file.source.uri for file in report.files)
        yield Problem(names or "data", "holds no rows", "set FORGE_DATASET_URI to data that does")
    elif report.rows == counts["invalid"] and options.invalid_rows == "fail":
        return  # every one of them has its own problem
    elif not counts["train"]:
        left = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
        yield Problem(
            "data",
            f"no row is left to train on ({left})",
            "lower FORGE_EVAL_FRACTION, raise FORGE_MAX_SEQ_LENGTH, or add rows",
        )
    elif report.supervised_tokens == 0:
        yield Problem("data", "no token of the whole data set can be trained")
