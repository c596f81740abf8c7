"""All of the Berkeley leaderboard's v4 data as conversations, for the data stage to judge.

    python -m benchmarks.data.leaderboard folder

`job.demo.bfcl` picks what can be trained on. Here nothing is picked: a record becomes a row
wherever it holds both sides of a conversation, also where it contradicts itself, since that is
what the data stage must find. What the leaderboard's files don't hold is not made up, but for one
sentence where it expects that no call is made.

- Questions with accepted calls: the first accepted value of each argument. In the Java and
  JavaScript categories many of them are names of variables, as strings.
- `*irrelevance`: the assistant says that no tool fits.
- `multi_turn_*`: the calls of a turn are Python source, read without running it. Their results
  come from simulators, so they are not in the data, and the user's next turn follows. Where a turn
  expects no call, the assistant says so. In `miss_func` the tools change in the middle, which no
  row can tell: it ends there.
- `memory`, `web_search`: the data have the last answer, not the calls that lead to it.

Left out are `live_relevance` (any call is accepted, none is given) and `memory_prereq` (what the
user says alone). `format_sensitivity` lists records of other categories, and the folder of unused
data sets is not part of v4.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.data.conversation import Conversation, Turn, hermes_row, openai_row
from benchmarks.data.corpus import DIALECTS
from benchmarks.data.python_calls import read_call
from job.demo.assets import DEFAULT_CACHE, fetch_leaderboard
from job.demo.bfcl import LeftOut, read_records, write
from job.demo.hermes import Unusable, refusal
from job.demo.schema import first_accepted

_DOCUMENTS: Final = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MemoryAPI": "memory_kv",
    "MessageAPI": "message_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "TwitterAPI": "posting_api",
    "VehicleControlAPI": "vehicle_control",
    "WebSearchAPI": "web_search",
}
"""Class → the file that declares its functions; of the three memories, the first."""


@dataclass(frozen=True)
class Converted:
    conversations: tuple[Conversation, ...]
    left_out: tuple[LeftOut, ...]


Reader = Callable[[dict[str, Any], Any], Conversation]
"""From a record and what is accepted as its answer (`None`: nothing is). Raises `Unusable`."""


def convert(source: Path) -> Converted:
    """Read the leaderboard's data folder. Raises `DataError` where it isn't the leaderboard's."""
    conversations, left_out = [], []
    for category, reader in _readers(_documents(source)).items():
        for record, answer in _records(source, category):
            try:
                conversations.append(reader(record, answer))
            except Unusable as problem:
                left_out.append(LeftOut(record["id"], problem.reason, problem.detail))
    return Converted(tuple(conversations), tuple(left_out))


def _readers(documents: dict[str, list[dict[str, Any]]]) -> dict[str, Reader]:
    answered = ("simple_python", "simple_java", "simple_javascript", "multiple", "parallel")
    live = ("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple")
    several_turns = ("base", "long_context", "miss_func", "miss_param")
    readers: dict[str, Reader] = {}
    for name in (*answered, "parallel_multiple", *live):
        readers[name] = partial(_answered, name)
    for name in ("irrelevance", "live_irrelevance"):
        readers[name] = partial(_irrelevant, name)
    readers["live_relevance"] = _relevant
    for name in several_turns:
        name = f"multi_turn_{name}"
        readers[name] = partial(_several_turns, name, documents)
    for name in ("memory", "web_search"):
        readers[name] = partial(_asked, name, documents)
    readers["memory_prereq"] = _one_sided
    return readers


def _records(source: Path, category: str) -> Iterator[tuple[dict[str, Any], Any]]:
    if category == "memory_prereq":
        for path in sorted((source / "memory_prereq_conversation").glob("*.json")):
            yield from ((record, None) for record in read_records(path))
        return
    name = f"BFCL_v4_{category}.json"
    answers: dict[str, Any] = {}
    if (source / "possible_answer" / name).exists():
        known = read_records(source / "possible_answer" / name)
        answers = {record["id"]: record["ground_truth"] for record in known}
    for record in read_records(source / name):
        yield record, answers.get(record["id"])


def _documents(source: Path) -> dict[str, list[dict[str, Any]]]:
    """Class → its functions."""
    folder = source / "multi_turn_func_doc"
    found = {}
    for name, file in _DOCUMENTS.items():
        lines = (folder / f"{file}.json").read_text(encoding="utf-8").splitlines()
        found[name] = [json.loads(line) for line in lines]
    return found


def _answered(category: str, record: dict[str, Any], answer: Any) -> Conversation:
    """A question and the calls that it is answered with."""
    functions = {function["name"]: function for function in record["function"]}
    calls = [
        {"name": name, "arguments": _accepted(functions.get(name, {}), given)}
        for call in answer
        for name, given in call.items()
    ]
    last = Turn("assistant", None, tuple(calls))
    return _conversation(category, record, [*_said(record), last])


def _accepted(function: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return first_accepted(given, function.get("parameters", {}))


def _irrelevant(category: str, record: dict[str, Any], _: Any) -> Conversation:
    last = Turn("assistant", refusal(record["id"]))
    return _conversation(category, record, [*_said(record), last])


def _relevant(record: dict[str, Any], _: Any) -> Conversation:
    raise Unusable("any call is accepted, none is given", record["id"])


def _one_sided(record: dict[str, Any], _: Any) -> Conversation:
    raise Unusable("holds what the user says alone", record["id"])


def _asked(
    category: str, documents: dict[str, list[dict[str, Any]]], record: dict[str, Any], answer: Any
) -> Conversation:
    """A question and the last answer to it."""
    last = Turn("assistant", str(answer[0]))
    functions = _offered(record, documents, without=())
    return Conversation(record["id"], category, functions, (*_said(record), last))


def _several_turns(
    category: str, documents: dict[str, list[dict[str, Any]]], record: dict[str, Any], answer: Any
) -> Conversation:
    """User turns, each answered with its calls."""
    missed = record.get("missed_function", {})
    without = [name for names in missed.values() for name in names]
    functions = _offered(record, documents, without)
    named = {function["name"]: function for function in functions}
    last = min(map(int, missed), default=len(answer))
    turns: list[Turn] = []
    for said, sources in zip(record["question"][:last], answer[:last], strict=True):
        turns += [Turn(message["role"], message["content"]) for message in said]
        calls = tuple(read_call(source, named) for source in sources)
        turns.append(Turn("assistant", None if calls else _NO_CALL, calls))
    return Conversation(record["id"], category, functions, tuple(turns))


_NO_CALL: Final = "I can't do this with the tools and the details that I have."
"""Where the leaderboard expects no call: a tool or an argument is missing."""


def _offered(
    record: dict[str, Any], documents: dict[str, list[dict[str, Any]]], without: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    hidden = {*without, *record.get("excluded_function", ())}
    return tuple(
        function
        for name in record["involved_classes"]
        for function in documents[name]
        if function["name"] not in hidden
    )


def _conversation(category: str, record: dict[str, Any], turns: Sequence[Turn]) -> Conversation:
    return Conversation(record["id"], category, tuple(record["function"]), tuple(turns))


def _said(record: dict[str, Any]) -> list[Turn]:
    """All turns before the answer."""
    return [
        Turn(message["role"], message["content"]) for said in record["question"] for message in said
    ]


def rows(
    converted: Converted, dialect: str
) -> tuple[list[tuple[Conversation, dict[str, Any]]], list[LeftOut]]:
    """Each conversation with its row in a dialect, and those that can't be written in it."""
    if dialect == "openai":
        return [(one, openai_row(one)) for one in converted.conversations], []
    written, left_out = [], []
    for conversation in converted.conversations:
        try:
            written.append((conversation, hermes_row(conversation)))
        except Unusable as problem:
            left_out.append(LeftOut(conversation.id, problem.reason, problem.detail))
    return written, left_out


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="for leaderboard-hermes.jsonl and -openai.jsonl")
    folder: Path = parser.parse_args(argv).folder
    converted = convert(fetch_leaderboard(DEFAULT_CACHE))
    for dialect in DIALECTS:
        written, left_out = rows(converted, dialect)
        write((row for _, row in written), folder / f"leaderboard-{dialect}.jsonl")
        print(f"{dialect}: {len(written)} rows")
        for name, count in Counter(one.category for one, _ in written).items():
            print(f"  {name}: {count}")
        for reason, count in Counter(
            one.reason for one in [*converted.left_out, *left_out]
        ).items():
            print(f"  left out: {count}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
