"""What became of every row, in figures and by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from job.dataset.review.balance import lopsided
from job.dataset.review.tally import EXAMPLES, Counted, Example
from job.dataset.rows.row import RejectedRow
from job.dataset.source.fetch import DataObject
from job.errors import DataError, Problem
from job.storage import Storage


@dataclass(frozen=True)
class FileReport:
    """A data object and how many rows it held."""

    source: DataObject
    rows: int
    invalid: int = 0


@dataclass(frozen=True)
class Lengths:
    """Tokens of the valid rows, before any was trimmed or dropped."""

    min: int
    mean: float
    p50: int
    p95: int
    max: int

    @classmethod
    def of(cls, counted: Mapping[int, int]) -> Lengths | None:
        """`counted` is length → rows; `None` for no rows."""
        if not counted:
            return None
        rows = sum(counted.values())
        total = sum(length * count for length, count in counted.items())
        return cls(
            min=min(counted),
            mean=round(total / rows, 1),
            p50=_percentile(counted, rows, 50),
            p95=_percentile(counted, rows, 95),
            max=max(counted),
        )


def _percentile(counted: Mapping[int, int], rows: int, percent: int) -> int:
    """The shortest length that `percent` of the rows don't exceed."""
    passed = 0
    for length in sorted(counted):
        passed += counted[length]
        if passed * 100 >= percent * rows:
            return length
    raise ValueError("no rows")


@dataclass(frozen=True)
class DataReport:
    """What `dataset/report.json` holds."""

    files: tuple[FileReport, ...]
    counts: dict[str, int]
    """By result; their sum is the number of rows."""
    dialects: dict[str, int]
    """Rows that were read, by how they were written."""
    trimmed: Counted
    """Rows cut at a turn; counted where they went."""
    dropped: Counted
    """Rows left out as too long."""
    duplicates: Counted
    """Rows whose conversation was seen before; they are kept."""
    leakage: Counted
    """Training rows whose prompt is nearly that of an evaluation row; they are kept."""
    warnings: dict[str, Counted]
    """What else the user should know of, by kind."""
    max_seq_length: int
    lengths: Lengths | None
    """`None` where no tokenizer was at hand; so are the next two."""
    tokens: int | None
    """Of the training rows."""
    supervised_tokens: int | None
    """Of them, those with a label."""
    rejected: tuple[RejectedRow, ...]
    """The first of them, without their bytes."""
    largest_group: int = 0
    """Rows that must stay on one side, since ids tie their prompts together."""
    same_prompt: int = 0
    """Rows that must stay on one side, since their prompt is the same: the most there are."""
    eval_fraction: float = 0.0
    """What was asked to be held out."""
    held_out_calls: int = 0
    """Evaluation turns in which the assistant calls a tool; the same turn counts once."""
    held_out_repeats: int = 0
    """Turns that were left out of that: each is the same as one that counts."""
    quarantine: Path | None = None
    """A file with the invalid rows as they stood in the data, secrets masked."""
    preview: bytes | None = None
    """`mask-preview.html`."""
    samples: tuple[dict[str, Any], ...] = ()
    """A few conversations of it, as the template `conversation.html.jinja` takes them."""

    @property
    def rows(self) -> int:
        return sum(self.counts.values())

    @property
    def invalid(self) -> Counted:
        """Invalid rows, with the first of them."""
        examples = [
            Example(row.uri, row.line, ": ".join(filter(None, (found.path, found.reason))))
            for row in self.rejected[:EXAMPLES]
            for found in row.problems[:1]
        ]
        return Counted(self.counts["invalid"], examples)

    @property
    def supervised_ratio(self) -> float | None:
        """Share of the training tokens that have a label."""
        if not self.tokens or self.supervised_tokens is None:
            return None
        return self.supervised_tokens / self.tokens

    @property
    def results(self) -> dict[str, int]:
        """`counts`, and of those rows how many were cut, seen before, or resemble the other side;
        for the metric `dataset_rows{result}`."""
        return self.counts | {
            "trimmed": self.trimmed.count,
            "duplicate": self.duplicates.count,
            "leaked": self.leakage.count,
        }

    def headline(self) -> str:
        """One line for the log."""
        counted = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count
        )
        parts = [f"{self.rows} rows: {counted}"]
        parts += [f"{self.trimmed.count} trimmed"] * bool(self.trimmed.count)
        parts += [f"{self.duplicates.count} duplicates"] * bool(self.duplicates.count)
        if self.lengths:
            parts.append(f"{self.lengths.p50} tokens at the median, {self.lengths.max} at most")
        if self.supervised_ratio is not None:
            parts.append(f"{self.supervised_ratio:.1%} of the training tokens have a label")
        return "; ".join(parts)

    def notices(self) -> Iterator[str]:
        """What the user should know of, a line each, with the first example."""
        told = [
            ("invalid, and left out", self.invalid),
            ("cut at a turn to fit", self.trimmed),
            ("left out as too long", self.dropped),
            ("the same conversation as another row", self.duplicates),
            ("training rows whose prompt is nearly that of an evaluation row", self.leakage),
            *self.warnings.items(),
        ]
        for what, found in told:
            if found.count:
                first = found.examples[0]
                yield f"{found.count} × {what}; first: {first.uri}:{first.line}: {first.detail}"
        yield from self.lopsided()

    def lopsided(self) -> Iterator[str]:
        """What is to be said of the split, a line each."""
        yield from lopsided(
            self.rows,
            self.counts["evaluation"],
            self.eval_fraction,
            self.largest_group,
            self.same_prompt,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for reports; without the text of the rejected rows."""
        return {
            "files": [asdict(file.source) | {"rows": file.rows} for file in self.files],
            "rows": self.rows,
            "counts": dict(self.counts),
            "dialects": dict(self.dialects),
            "trimmed": self.trimmed.count,
            "duplicates": self.duplicates.count,
            "leakage": self.leakage.count,
            "largest_group": self.largest_group,
            "same_prompt": self.same_prompt,
            "held_out_calls": self.held_out_calls,
            "held_out_repeats": self.held_out_repeats,
            "max_seq_length": self.max_seq_length,
            "lengths": asdict(self.lengths) if self.lengths else None,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "supervised_ratio": self.supervised_ratio,
            "warnings": {kind: asdict(found) for kind, found in self.warnings.items()},
            "rejected": [_rejected(row) for row in self.rejected],
            "dropped_examples": _plain(self.dropped.examples),
            "trimmed_examples": _plain(self.trimmed.examples),
            "duplicate_examples": _plain(self.duplicates.examples),
            "leakage_examples": _plain(self.leakage.examples),
        }

    def upload(self, storage: Storage) -> None:
        """Put the artifacts where a run has them: below `dataset/`."""
        for name, content in self.artifacts().items():
            if isinstance(content, Path):
                storage.upload(f"dataset/{name}", content)
            else:
                storage.write(f"dataset/{name}", content)

    def artifacts(self) -> dict[str, bytes | Path]:
        """Name → content of the files that go into the run's `dataset/` folder."""
        files: dict[str, bytes | Path] = {
            "report.json": orjson.dumps(self.as_dict(), option=orjson.OPT_INDENT_2)
        }
        if self.quarantine is not None:
            files["quarantine.jsonl"] = self.quarantine
        if self.preview is not None:
            files["mask-preview.html"] = self.preview
        return files


class DataRejected(DataError):
    """The rows can't be trained on as they are; `report` says all about them."""

    def __init__(self, problems: Sequence[Problem] | Problem, report: DataReport) -> None:
        super().__init__(problems)
        self.report = report


def problems_of(rejected: Sequence[RejectedRow]) -> Iterator[Problem]:
    for row in rejected:
        yield from row.as_problems()


def _plain(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [asdict(example) for example in examples]


def _rejected(row: RejectedRow) -> dict[str, Any]:
    problems = [asdict(problem) for problem in row.problems]
    return {"uri": row.uri, "line": row.line, "problems": problems}
