"""Counting while the rows stream by: what the report is made of at the end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any, Final

from job.dataset.rows.row import RejectedRow, Row, RowProblem
from job.dataset.rows.secrets import mask_secrets
from job.dataset.source.fetch import DataFile

EXAMPLES: Final = 20
"""Of each kind of row that is trimmed, dropped, or warned of."""
REPORTED: Final = 10_000
"""Rejected rows that are told of in the report; the quarantine has all of them."""
_KINDS: Final = 100
"""Kinds of warnings that are told apart."""

_SPECIFIC: Final = re.compile(r"(?<!\w)'[^']*'(?!\w)|\d+")
_NUMBERED: Final = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Example:
    """A row that something is said of."""

    uri: str
    line: int
    detail: str


@dataclass
class Counted:
    """How many rows, and the first of them."""

    count: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, uri: str, line: int, detail: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(Example(uri, line, mask_secrets(detail)))


class Tally:
    """Figures of one pass over the data; memory doesn't grow with it.

    `warn` and `refuse` may be called from several threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.rows: Counter[str] = Counter()
        """Read, by file."""
        self.dialects: Counter[str] = Counter()
        self.refused = 0
        self.refused_in: Counter[str] = Counter()
        """By file."""
        self.rejected: list[RejectedRow] = []
        """The first `REPORTED`, without their bytes."""
        self.dropped = Counted()
        self.trimmed = Counted()
        self.too_long: list[Example] = []
        """The first rows that a policy of `fail` objects to."""
        self.warnings: dict[str, Counted] = {}
        self.lengths: Counter[int] = Counter()
        """Tokens of the valid rows before any was cut → rows."""

    def saw(self, row: Row | RejectedRow) -> None:
        """Count one row of a file, as it was read."""
        self.rows[row.uri] += 1
        if isinstance(row, Row):
            self.dialects[row.dialect] += 1
            for warning in row.warnings:
                self.warn(row, warning)

    def warn(self, row: Row, warning: RowProblem) -> None:
        """Told, and trained on all the same."""
        detail = mask_secrets(f"{warning.path}: {warning.reason}")
        kind = _SPECIFIC.sub("…", _NUMBERED.sub("", detail))
        with self._lock:
            if kind not in self.warnings and len(self.warnings) == _KINDS:
                kind = "others"
            self.warnings.setdefault(kind, Counted()).add(row.uri, row.line, detail)

    def refuse(self, row: RejectedRow) -> None:
        """A row is not trained on, found out when it was read or later."""
        problems = tuple(
            replace(problem, path=mask_secrets(problem.path), reason=mask_secrets(problem.reason))
            for problem in row.problems
        )
        with self._lock:
            self.refused += 1
            self.refused_in[row.uri] += 1
            if len(self.rejected) < REPORTED:
                self.rejected.append(RejectedRow(row.uri, row.line, b"", problems))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` reads them back."""
        return {
            "rows": dict(self.rows),
            "dialects": dict(self.dialects),
            "refused": self.refused,
            "refused_in": dict(self.refused_in),
            "rejected": [
                [row.uri, row.line, [asdict(problem) for problem in row.problems]]
                for row in self.rejected
            ],
            "dropped": asdict(self.dropped),
            "trimmed": asdict(self.trimmed),
            "too_long": [asdict(example) for example in self.too_long],
            "warnings": {kind: asdict(counted) for kind, counted in self.warnings.items()},
            "lengths": list(self.lengths.items()),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Tally:
        tally = cls()
        tally.rows.update(plain["rows"])
        tally.dialects.update(plain["dialects"])
        tally.refused = plain["refused"]
        tally.refused_in.update(plain["refused_in"])
        tally.rejected = [
            RejectedRow(uri, line, b"", tuple(RowProblem(**problem) for problem in problems))
            for uri, line, problems in plain["rejected"]
        ]
        tally.dropped, tally.trimmed = _counted(plain["dropped"]), _counted(plain["trimmed"])
        tally.too_long = [Example(**example) for example in plain["too_long"]]
        tally.warnings = {kind: _counted(found) for kind, found in plain["warnings"].items()}
        tally.lengths.update(dict(plain["lengths"]))
        return tally

    def by_file(self, files: Sequence[DataFile]) -> list[tuple[int, int]]:
        """Rows of each file, and how many of them are invalid."""
        uris = [file.source.uri for file in files]
        return [(self.rows[uri], self.refused_in[uri]) for uri in uris]


def _counted(plain: Mapping[str, Any]) -> Counted:
    return Counted(plain["count"], [Example(**example) for example in plain["examples"]])
