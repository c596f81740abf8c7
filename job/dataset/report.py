"""What became of every row, in figures and by line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import orjson

from job.dataset.fetch import DataObject
from job.dataset.row import RejectedRow
from job.errors import DataError, Problem

RESULTS: Final = (
    "train",
    "evaluation",
    "held_out_unused",
    "invalid",
    "overlong_dropped",
)
"""Each row of the data is counted under one of them."""

_REPORTED: Final = 10_000
"""Rejected rows that the report holds; the quarantine has all of them."""


@dataclass(frozen=True)
class FileReport:
    """A data object and how many rows it held."""

    source: DataObject
    rows: int


@dataclass(frozen=True)
class Lengths:
    """Tokens of the valid rows, before any was trimmed or dropped."""

    min: int
    mean: float
    p50: int
    p95: int
    max: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths | None:
        """`None` for no rows."""
        if not lengths:
            return None
        array = np.asarray(lengths)
        p50, p95 = np.percentile(array, [50, 95], method="higher")
        mean = round(float(array.mean()), 1)
        return cls(int(array.min()), mean, int(p50), int(p95), int(array.max()))


@dataclass(frozen=True)
class Example:
    """A row that was trimmed, dropped, or seen before."""

    uri: str
    line: int
    detail: str


@dataclass(frozen=True)
class DataReport:
    """What `dataset/report.json` holds."""

    files: tuple[FileReport, ...]
    counts: dict[str, int]
    """By result; their sum is the number of rows."""
    trimmed: int
    """Rows cut at a turn; counted where they went."""
    duplicates: int
    """Rows whose conversation was seen before; they are kept."""
    max_seq_length: int
    lengths: Lengths | None
    """`None` where no tokenizer was at hand; so are the next two."""
    tokens: int | None
    """Of the training rows."""
    supervised_tokens: int | None
    """Of them, those with a label."""
    rejected: tuple[RejectedRow, ...]
    dropped_examples: tuple[Example, ...]
    trimmed_examples: tuple[Example, ...]
    duplicate_examples: tuple[Example, ...]

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    @property
    def supervised_ratio(self) -> float | None:
        """Share of the training tokens that have a label."""
        if not self.tokens or self.supervised_tokens is None:
            return None
        return self.supervised_tokens / self.tokens

    def headline(self) -> str:
        """One line for the log."""
        counted = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count
        )
        parts = [f"{self.rows} rows: {counted}"]
        parts += [f"{self.trimmed} trimmed"] * bool(self.trimmed)
        parts += [f"{self.duplicates} duplicates"] * bool(self.duplicates)
        if self.lengths:
            parts.append(f"{self.lengths.p50} tokens at the median, {self.lengths.max} at most")
        if self.supervised_ratio is not None:
            parts.append(f"{self.supervised_ratio:.0%} of the training tokens have a label")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for reports; without the text of the rejected rows."""
        return {
            "files": [asdict(file.source) | {"rows": file.rows} for file in self.files],
            "rows": self.rows,
            "counts": dict(self.counts),
            "trimmed": self.trimmed,
            "duplicates": self.duplicates,
            "max_seq_length": self.max_seq_length,
            "lengths": asdict(self.lengths) if self.lengths else None,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "supervised_ratio": self.supervised_ratio,
            "rejected": [_rejected(row) for row in self.rejected[:_REPORTED]],
            "dropped_examples": [asdict(example) for example in self.dropped_examples],
            "trimmed_examples": [asdict(example) for example in self.trimmed_examples],
            "duplicate_examples": [asdict(example) for example in self.duplicate_examples],
        }

    def artifacts(self) -> dict[str, bytes]:
        """Name → content of the files that go into the run's `dataset/` folder."""
        files = {"report.json": orjson.dumps(self.as_dict(), option=orjson.OPT_INDENT_2)}
        if self.rejected:
            files["quarantine.jsonl"] = b"".join(row.raw + b"\n" for row in self.rejected)
        return files


class DataRejected(DataError):
    """The rows can't be trained on as they are; `report` says all about them."""

    def __init__(self, problems: Sequence[Problem] | Problem, report: DataReport) -> None:
        super().__init__(problems)
        self.report = report


def problems_of(rejected: Sequence[RejectedRow]) -> Iterator[Problem]:
    for row in rejected:
        yield from row.as_problems()


def _rejected(row: RejectedRow) -> dict[str, Any]:
    problems = [asdict(problem) for problem in row.problems]
    return {"uri": row.uri, "line": row.line, "problems": problems}
