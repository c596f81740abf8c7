"""Counting while the rows stream by: what the report is made of at the end."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Final

from job.dataset.fetch import DataFile
from job.dataset.report import RESULTS, DataReport, Example, FileReport, Lengths
from job.dataset.row import RejectedRow, Row
from job.dataset.split import content_hash

_EXAMPLES: Final = 20
"""Of each kind of row that is trimmed, dropped or seen before."""


class Tally:
    """Figures of one pass over the data. Only the rejected rows are kept, the others counted."""

    def __init__(self) -> None:
        self.rejected: list[RejectedRow] = []
        self._rows: Counter[str] = Counter()
        self._seen: set[int] = set()
        self._duplicates: list[Example] = []
        self._dropped: list[Example] = []
        self._trimmed: list[Example] = []
        self._counted: Counter[str] = Counter()
        self._lengths = array("q")

    @property
    def rows(self) -> int:
        """Seen so far."""
        return self._rows.total()

    def saw(self, row: Row | RejectedRow) -> None:
        """Count one row of a file, as it was read."""
        self._rows[row.uri] += 1
        if isinstance(row, RejectedRow):
            self.refused(row)
            return
        digest = content_hash(row)
        if digest in self._seen:
            self._count("duplicates", self._duplicates, row, "the same conversation as before")
        self._seen.add(digest)

    def refused(self, row: RejectedRow) -> None:
        """A row is not trained on, found out when it was read or later."""
        self.rejected.append(row)

    def measured(self, tokens: int) -> None:
        """A valid row is so long, before it is cut."""
        self._lengths.append(tokens)

    def dropped(self, row: Row, detail: str) -> None:
        self._count("dropped", self._dropped, row, detail)

    def trimmed(self, row: Row, detail: str) -> None:
        self._count("trimmed", self._trimmed, row, detail)

    def report(
        self,
        files: Sequence[DataFile],
        kept: dict[str, int],
        max_seq_length: int,
        tokens: tuple[int, int] | None,
    ) -> DataReport:
        """`kept` counts the rows by side, `tokens` are those of training, all and supervised."""
        counts = dict.fromkeys(RESULTS, 0) | kept
        counts |= {"invalid": len(self.rejected), "overlong_dropped": self._counted["dropped"]}
        return DataReport(
            files=tuple(FileReport(file.source, self._rows[file.source.uri]) for file in files),
            counts=counts,
            trimmed=self._counted["trimmed"],
            duplicates=self._counted["duplicates"],
            max_seq_length=max_seq_length,
            lengths=Lengths.of(self._lengths),
            tokens=tokens[0] if tokens else None,
            supervised_tokens=tokens[1] if tokens else None,
            rejected=tuple(self.rejected),
            dropped_examples=tuple(self._dropped),
            trimmed_examples=tuple(self._trimmed),
            duplicate_examples=tuple(self._duplicates),
        )

    def _count(self, what: str, examples: list[Example], row: Row, detail: str) -> None:
        self._counted[what] += 1
        if len(examples) < _EXAMPLES:
            examples.append(Example(row.uri, row.line, detail))
