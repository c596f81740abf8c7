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
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from job.demo.schema import UnknownType, first_accepted, json_schema
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

SYSTEM_PROMPT: Final = (
    "Answer with the tool calls that the request needs, each as\n"
    '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>\n'
    "or say that no tool fits."
)
"""Short on purpose: it is part of every row, and every token of it costs time on a CPU."""

_REFUSALS: Final = (
    "None of the available tools can do this.",
    "I can't do this: no available tool fits the request.",
    "No available tool fits this request.",
)


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
        Category("irrelevance", limit=50),
    ),
    max_chars=1000,
    unique_tools=True,
    settings={
        "FORGE_LEARNING_RATE": "1.5e-3",
        "FORGE_MAX_STEPS": "60",
        "FORGE_PER_DEVICE_TRAIN_BATCH_SIZE": "4",
        "FORGE_GRADIENT_ACCUMULATION_STEPS": "1",
        "FORGE_MAX_SEQ_LENGTH": "512",
        "FORGE_EVAL_FRACTION": "0.15",
        "FORGE_EVAL_MAX_ROWS": "44",
        "FORGE_EVAL_STEPS": "1000",
    },
)
"""Few short rows, so that two CPU cores are enough."""


class _Unusable(Exception):
    """This row can't be converted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


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
            records.sort(key=lambda record: _digest(record[0]["id"]))
        wanted = len(rows) + (category.limit or len(records))
        for question, answer in records:
            if len(rows) == wanted:
                break
            try:
                row = _row(category.name, question, answer)
                taken.add(row, {function["name"] for function in question["function"]})
                rows.append(row)
            except _Unusable as problem:
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
    questions = _read_lines(source / name)
    if category.endswith("irrelevance"):
        yield from ((question, []) for question in questions)
        return
    answers = {
        answer["id"]: answer["ground_truth"]
        for answer in _read_lines(source / "possible_answer" / name)
    }
    for question in questions:
        yield question, answers.get(question["id"], [])


def _read_lines(path: Path) -> list[dict[str, Any]]:
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


def _row(category: str, question: dict[str, Any], answer: list[Any]) -> dict[str, Any]:
    tools = _tools(question["function"])
    expects_call = not category.endswith("irrelevance")
    if expects_call and not answer:
        raise _Unusable("no accepted answer")
    calls = [_call(tools, name, given) for call in answer for name, given in call.items()]
    reply = "\n".join(map(_tool_call, calls)) if expects_call else _refusal(question["id"])
    return {
        "id": question["id"],
        "source": f"bfcl_v4/{category}",
        "scenario": ("parallel_calls" if len(calls) > 1 else "single_call") if calls else "no_tool",
        "tool_name": calls[0]["name"] if calls else None,
        "messages": [
            *_conversation(question["question"], tools),
            {"role": "assistant", "content": reply},
        ],
    }


def _tools(functions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    try:
        return {
            function["name"]: {**function, "parameters": json_schema(function["parameters"])}
            for function in functions
        }
    except UnknownType as error:
        raise _Unusable("unknown type in a schema", str(error)) from None


def _conversation(turns: list[list[dict[str, str]]], tools: dict[str, Any]) -> list[dict[str, str]]:
    """System message with the tools, then the turns before the answer."""
    messages = [message for turn in turns for message in turn]
    system = [SYSTEM_PROMPT]
    if messages and messages[0]["role"] == "system":
        system.append(messages.pop(0)["content"])
    expected = [("user", "assistant")[i % 2] for i in range(len(messages))]
    if [message["role"] for message in messages] != expected or len(messages) % 2 == 0:
        raise _Unusable("turns don't alternate", " ".join(m["role"] for m in messages))
    lines = [
        json.dumps(
            {"type": "function", "function": tool}, ensure_ascii=False, separators=(",", ":")
        )
        for tool in tools.values()
    ]
    content = "\n".join([*system, "<tools>", *lines, "</tools>"])
    return [
        {"role": "system", "content": content},
        *({"role": message["role"], "content": message["content"]} for message in messages),
    ]


def _call(tools: dict[str, Any], name: str, accepted: dict[str, Any]) -> dict[str, Any]:
    if name not in tools:
        raise _Unusable("answer calls an undeclared tool", name)
    schema = tools[name]["parameters"]
    undeclared = set(accepted) - set(schema.get("properties", {}))
    if undeclared:
        raise _Unusable("answer has an undeclared argument", ", ".join(sorted(undeclared)))
    arguments = first_accepted(accepted, schema)
    error = next(iter(Draft202012Validator(schema).iter_errors(arguments)), None)
    if error is not None:
        raise _Unusable("answer contradicts the schema", f"{error.json_path}: {error.message}")
    return {"name": name, "arguments": arguments}


def _tool_call(call: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _refusal(row_id: str) -> str:
    return _REFUSALS[int(_digest(row_id), 16) % len(_REFUSALS)]


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
            raise _Unusable("same prompt as an earlier row")
        length = sum(len(message["content"]) for message in row["messages"])
        if self.max_chars is not None and length > self.max_chars:
            raise _Unusable("too long", f"{length} characters")
        if self.unique_tools and tools & self.tools:
            raise _Unusable("tool of an earlier row", ", ".join(sorted(tools & self.tools)))
        self.prompts.add(prompt)
        self.tools |= tools


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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
