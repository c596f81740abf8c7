"""The Berkeley Function Calling Leaderboard (v4) as Hermes rows: real prompts, schemas, answers.

    python -m job.demo.bfcl --source <folder> --out rows.jsonl --categories simple_python

The leaderboard is a test: for each argument it lists the values that it accepts. A row here has
one answer, the first accepted value of each argument; an argument that may be left out is left
out. Schemas are turned from Python's type names into JSON Schema, and every answer is checked
against them: a row that contradicts its own schema, names a tool or an argument that is not
declared, or whose turns don't alternate is left out and reported with the reason.

The Java and JavaScript categories are not read: their accepted answers are source code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from job.demo.hermes import Unusable, digest, hermes_row
from job.errors import DataError, Problem

CATEGORIES: Final = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "irrelevance",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
    "live_irrelevance",
)
"""What can be converted; `live_*` are real users' prompts, `*irrelevance` expect no call."""


@dataclass(frozen=True)
class Category:
    """One of `CATEGORIES`, and how many of its rows to take at most (`None`: all)."""

    name: str
    limit: int | None = None

    @classmethod
    def parse(cls, text: str) -> Category:
        """`multiple` or `irrelevance=40`. Raises `ValueError`."""
        name, _, limit = text.partition("=")
        if name not in CATEGORIES:
            raise ValueError(f"'{name}' is not one of {', '.join(CATEGORIES)}")
        if limit and not (limit.isdecimal() and int(limit)):
            raise ValueError(f"'{text}': the limit must be a positive whole number")
        return cls(name, int(limit) if limit else None)


@dataclass(frozen=True)
class LeftOut:
    """A row that was not converted, and why."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Conversion:
    """Hermes rows in a stable order, and what was left out."""

    rows: tuple[dict[str, Any], ...]
    left_out: tuple[LeftOut, ...]

    def reasons(self) -> dict[str, int]:
        """Reason → number of rows."""
        return dict(Counter(row.reason for row in self.left_out).most_common())


EVERYTHING: Final = tuple(Category(category) for category in CATEGORIES)


@dataclass(frozen=True)
class Recipe:
    """Which rows the demo trains on, and the settings it trains with."""

    categories: tuple[Category, ...]
    max_chars: int
    unique_tools: bool
    settings: Mapping[str, str]


DEMO: Final = Recipe(
    categories=(
        Category("simple_python"),
        Category("live_simple"),
        Category("irrelevance", limit=60),
    ),
    max_chars=950,
    unique_tools=True,
    settings={
        "FORGE_LEARNING_RATE": "1.5e-3",
        "FORGE_MAX_STEPS": "60",
        "FORGE_PER_DEVICE_TRAIN_BATCH_SIZE": "4",
        "FORGE_GRADIENT_ACCUMULATION_STEPS": "1",
        "FORGE_MAX_SEQ_LENGTH": "512",
        "FORGE_EVAL_FRACTION": "0.15",
        "FORGE_EVAL_MAX_ROWS": "48",
        "FORGE_EVAL_STEPS": "30",
    },
)
"""Few short rows, so that two CPU cores are enough."""


def convert(
    source: Path,
    categories: Sequence[Category] = EVERYTHING,
    *,
    max_chars: int | None = None,
    unique_tools: bool = False,
) -> Conversion:
    """Read the leaderboard's data folder and turn it into rows, the same ones at every call.

    `max_chars` leaves out rows whose messages have more characters, `unique_tools` those that
    declare a tool of an earlier row: however the rows are split then, the tools of the held-out
    ones were never trained. Where a category has a limit, the rows with the smallest hash of their
    id are taken: a sample over all its subjects.
    Raises `DataError` where a file is missing or isn't the leaderboard's.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[LeftOut] = []
    taken = _Taken(max_chars, unique_tools)
    for category in categories:
        records = list(_read(source, category.name))
        if category.limit is not None:
            records.sort(key=lambda record: digest(record[0]["id"]))
        wanted = len(rows) + (category.limit or len(records))
        for question, answer in records:
            if len(rows) == wanted:
                break
            try:
                row = hermes_row(category.name, question, answer)
                taken.add(row, {function["name"] for function in question["function"]})
                rows.append(row)
            except Unusable as problem:
                left_out.append(LeftOut(question["id"], problem.reason, problem.detail))
    return Conversion(tuple(rows), tuple(left_out))


def write(rows: Iterable[dict[str, Any]], out: Path) -> None:
    """Write JSON lines, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    part.replace(out)


def _read(source: Path, category: str) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Each question with its accepted answers: none for the irrelevance categories."""
    name = f"BFCL_v4_{category}.json"
    questions = read_records(source / name)
    if category.endswith("irrelevance"):
        yield from ((question, []) for question in questions)
        return
    answers = {
        answer["id"]: answer["ground_truth"]
        for answer in read_records(source / "possible_answer" / name)
    }
    for question in questions:
        yield question, answers.get(question["id"], [])


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of one of the leaderboard's files. Raises `DataError`."""
    hint = "the data folder of the wheel bfcl-eval is expected"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(Problem(str(path), "is missing", hint)) from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(Problem(f"{path}:{number}", f"is not JSON: {error}", hint)) from None
        if not isinstance(record, dict) or "id" not in record:
            raise DataError(Problem(f"{path}:{number}", "is no record with an id", hint))
        records.append(record)
    return records


@dataclass
class _Taken:
    """What is in the rows so far, and so may not come again."""

    max_chars: int | None
    unique_tools: bool
    prompts: set[str] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)

    def add(self, row: dict[str, Any], tools: set[str]) -> None:
        prompt = json.dumps(row["messages"][:-1])
        if prompt in self.prompts:
            raise Unusable("same prompt as an earlier row")
        length = sum(len(message["content"]) for message in row["messages"])
        if self.max_chars is not None and length > self.max_chars:
            raise Unusable("too long", f"{length} characters")
        if self.unique_tools and tools & self.tools:
            raise Unusable("tool of an earlier row", ", ".join(sorted(tools & self.tools)))
        self.prompts.add(prompt)
        self.tools |= tools


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m job.demo.bfcl", description="BFCL → Hermes")
    parser.add_argument("--source", type=Path, required=True, help="data folder of bfcl-eval")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("--categories", nargs="+", default=list(CATEGORIES), metavar="NAME[=LIMIT]")
    parser.add_argument("--max-chars", type=int, help="leave out rows with more characters")
    parser.add_argument("--unique-tools", action="store_true", help="no tool in two rows")
    options = parser.parse_args(argv)
    try:
        categories = [Category.parse(text) for text in options.categories]
        conversion = convert(
            options.source,
            categories,
            max_chars=options.max_chars,
            unique_tools=options.unique_tools,
        )
    except ValueError as error:
        parser.error(str(error))
    except DataError as error:
        print(f"{error.title}: {error}", file=sys.stderr)
        return error.exit_code
    write(conversion.rows, options.out)
    print(f"{len(conversion.rows)} rows written to {options.out}")
    for reason, count in conversion.reasons().items():
        print(f"{count} left out: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
