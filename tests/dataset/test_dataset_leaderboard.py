"""All of the Berkeley leaderboard's v4 data through the data stage, in both dialects.

Each record that is refused stands below, under what is wrong with it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema_rs import meta

from benchmarks.data.conversation import Conversation
from benchmarks.data.leaderboard import Converted, convert, rows
from job.dataset import ChatFormat, RejectedRow, Rendered, Row, RowProblem, read_rows
from job.demo.assets import DEFAULT_CACHE, fetch_leaderboard
from tests.dataset.standin import data_file

REPOSITORY: Final = Path(__file__).parents[2]

CATEGORIES: Final = {
    "simple_python": 400,
    "simple_java": 100,
    "simple_javascript": 50,
    "multiple": 200,
    "parallel": 200,
    "parallel_multiple": 200,
    "irrelevance": 240,
    "live_simple": 258,
    "live_multiple": 1053,
    "live_parallel": 16,
    "live_parallel_multiple": 24,
    "live_irrelevance": 884,
    "multi_turn_base": 200,
    "multi_turn_long_context": 200,
    "multi_turn_miss_func": 200,
    "multi_turn_miss_param": 200,
    "memory": 155,
    "web_search": 100,
}
"""Conversations."""

LEFT_OUT: Final = {
    # live_relevance: the leaderboard looks only whether there is a call.
    "any call is accepted, none is given": 16,
    # memory_prereq: what the model is told before it is asked.
    "holds what the user says alone": 37,
}

VARIABLES: Final = {
    # Named in the prompt as `docFields`; only in a program would they be what is asked for.
    "simple_java_26": "integer",
    "simple_java_35": "array",
    "simple_java_38": "object",
    "simple_java_45": "object",
    "simple_java_58": "object",
    "simple_java_69": "array",
    "simple_java_72": "array",
    "simple_java_82": "array",
    "simple_java_87": "integer",
    "simple_java_88": "integer",
    "simple_javascript_5": "object",
    "simple_javascript_9": "object",
    "simple_javascript_11": "array",
    "simple_javascript_15": "array",
    "simple_javascript_19": "object",
    "simple_javascript_32": "array",
    "simple_javascript_37": "array",
    "simple_javascript_39": "array",
    "parallel_multiple_21": "array",
}
"""The answer is the name of a variable, as a string → what its schema asks for."""

OTHER_TYPES: Final = {
    "parallel_multiple_94": """is "apple", a string, but its schema asks for an integer""",
    "live_multiple_552-153-1": "is true, but its schema asks for a string",
    "live_multiple_595-158-1": "is 2, a number, but its schema asks for a string",
    "live_multiple_596-158-2": "is 1, a number, but its schema asks for a string",
    "live_multiple_731-167-2": "is true, but its schema asks for a string",
    "live_multiple_733-167-4": "is true, but its schema asks for a string",
    "live_multiple_735-167-6": "is true, but its schema asks for a string",
    # Its default is null, too, but its type doesn't allow it.
    "live_multiple_1038-265-0": "is null, but its schema asks for a string",
    **{
        f"multi_turn_{name}_173": "a string, but its schema asks for an integer"
        for name in ("base", "long_context", "miss_param")
    },
}

NOT_LISTED: Final = {
    "live_multiple_87-38-4": '"openai"',  # 'openapi' is
    "live_multiple_750-169-5": '"Any"',
    "live_multiple_756-169-11": '"horror"',  # 'Horror' is
    "live_multiple_835-178-10": '"Reggaeton"',
    "live_multiple_871-182-8": '"Play"',
    "live_multiple_947-197-0": '"5 minutes"',
    "live_parallel_multiple_2-2-0": '"침실, 공기청정기, 중지"',
    # An array, whose schema lists what its items may be as if it were one of them.
    "live_simple_71-35-0": '["view"]',
    "live_multiple_152-58-6": '["temperature","humidity"]',
}
"""The answer is none of the values that its schema lists."""

ODD: Final = {
    "live_multiple_964-207-0": "'statement' of 'transfer_to_human_agent' is missing",
    # It needs a tool that the leaderboard offers two turns later.
    "multi_turn_miss_func_49": "calls 'tail', which is not declared",
    # Prompts of real users: cursor keys, a backspace, and nothing but Ctrl-V.
    "live_irrelevance_263-56-6": "holds the control character U+001B",
    "live_irrelevance_372-81-33": "holds the control character U+0008",
    "live_irrelevance_737-251-0": "holds the control character U+0016",
    "live_irrelevance_292-72-1": "two user turns in a row",
    "live_irrelevance_298-73-5": "two user turns in a row",
    "live_irrelevance_527-162-2": "two user turns in a row",
}

UNTYPED: Final = {"simple_javascript_23": '"" is not a type'}
"""Its converted schema can't be written, so Hermes rows are without it."""

REFUSED: Final = (
    {name: f"a string, but its schema asks for an {asked}" for name, asked in VARIABLES.items()}
    | OTHER_TYPES
    | {name: f"is {value}, but its schema allows" for name, value in NOT_LISTED.items()}
    | ODD
)


@dataclass(frozen=True)
class Read:
    """What the data stage made of the rows in one dialect."""

    dialect: str
    conversations: dict[str, Conversation]
    """By id, those that were written."""
    left_out: list[str]
    """Ids of those that can't be written."""
    accepted: dict[str, Row]
    refused: dict[str, RejectedRow]


@pytest.fixture(scope="session")
def source() -> Path:
    return fetch_leaderboard(REPOSITORY / DEFAULT_CACHE)


@pytest.fixture(scope="session")
def converted(source: Path) -> Converted:
    return convert(source)


@pytest.fixture(scope="session", params=["openai", "hermes"])
def read(
    request: pytest.FixtureRequest, converted: Converted, tmp_path_factory: pytest.TempPathFactory
) -> Read:
    written, left_out = rows(converted, request.param)
    path = tmp_path_factory.mktemp("leaderboard") / "rows.jsonl"
    file = data_file(path, *(row for _, row in written))
    found = Read(request.param, {}, [one.id for one in left_out], {}, {})
    for (conversation, _), row in zip(written, read_rows([file]), strict=True):
        found.conversations[conversation.id] = conversation
        if isinstance(row, Row):
            found.accepted[conversation.id] = row
        else:
            found.refused[conversation.id] = row
    assert len(found.conversations) == len(written), "ids are not unique"
    return found


def test_every_file_of_the_leaderboard_is_converted(source: Path, converted: Converted) -> None:
    files = {path.stem.removeprefix("BFCL_v4_") for path in source.glob("BFCL_v4_*.json")}
    # The first lists records of others; the second has no answers, and is left out by reason.
    assert files - CATEGORIES.keys() == {"format_sensitivity", "live_relevance"}
    counted = Counter(conversation.category for conversation in converted.conversations)
    assert counted == CATEGORIES
    assert Counter(record.reason for record in converted.left_out) == LEFT_OUT


def test_what_is_refused_is_refused_for_its_reason(read: Read) -> None:
    expected = REFUSED | (UNTYPED if read.dialect == "openai" else {})
    assert read.refused.keys() == expected.keys()
    for name, row in read.refused.items():
        assert expected[name] in row.problems[0].reason, name
    assert len(read.accepted) == 4632
    assert read.left_out == ([] if read.dialect == "openai" else [*UNTYPED])


def test_a_refused_row_has_no_other_faults(read: Read) -> None:
    """Beyond the one in the list: several arguments with the same, or type and enum at once."""
    for name in VARIABLES:
        for problem in read.refused[name].problems:
            assert "a string, but its schema asks for" in problem.reason, name
    for name in (*OTHER_TYPES, *NOT_LISTED):
        for problem in read.refused[name].problems:
            assert re.search("but its schema (asks for|allows)", problem.reason), name
    for name in ODD:
        assert len({problem.reason for problem in read.refused[name].problems}) == 1, name


def test_warnings_tell_of_foreign_types_and_unanswered_calls(read: Read) -> None:
    told = {name: Counter(map(_kind, row.warnings)) for name, row in read.accepted.items()}
    kinds = Counter(kind for counted in told.values() for kind in counted)
    foreign = sum(bool(read.conversations[name].functions) for name in read.accepted)
    assert kinds == {
        **({"types": foreign} if read.dialect == "openai" else {}),
        "unanswered": sum(_goes_on_after_calls(read.conversations[name]) for name in read.accepted),
        "undeclared": 1,
    }
    assert told["live_multiple_862-181-3"]["undeclared"] == 1
    assert kinds["unanswered"] > 500


def test_a_row_says_what_the_leaderboard_says(read: Read, chatml: ChatFormat) -> None:
    accepted = list(read.accepted.items())
    for place in range(0, len(accepted), 200):
        batch = accepted[place : place + 200]
        rendered = chatml.render_all([row for _, row in batch])
        for (name, _), text in zip(batch, rendered, strict=True):
            assert isinstance(text, Rendered), (name, text)
            turns = [t for t in read.conversations[name].turns if t.role == "assistant"]
            assert len(text.spans) == len(turns), name
            for (first, last), turn in zip(text.spans, turns, strict=True):
                trained = text.text[first:last]
                assert _calls(trained) == list(turn.calls), name
                assert turn.calls or trained == f"{turn.text}<|im_end|>", name


def test_schemas_are_those_of_the_leaderboard(read: Read) -> None:
    for name, row in read.accepted.items():
        functions = read.conversations[name].functions
        if read.dialect == "openai":
            assert [tool["function"] for tool in row.tools or []] == list(functions)
            continue
        tools = _tools(row) if functions else []
        assert [tool["name"] for tool in tools] == [function["name"] for function in functions]
        assert all(meta.is_valid(tool["parameters"]) for tool in tools), name


def _kind(warning: RowProblem) -> str:
    [kind] = [kind for kind, words in _KINDS.items() if words in warning.reason]
    return kind


_KINDS: Final = {
    "types": "types that JSON Schema doesn't",
    "unanswered": "no tool turn answers its calls",
    "undeclared": "is not among the tool's parameters",
}


def _goes_on_after_calls(conversation: Conversation) -> bool:
    return any(turn.calls for turn in conversation.turns[:-1])


def _calls(text: str) -> list[dict[str, Any]]:
    return [json.loads(found) for found in re.findall(r"<tool_call>\n(.*)\n</tool_call>", text)]


def _tools(row: Row) -> list[dict[str, Any]]:
    text = row.messages[0]["content"]
    lines = text.split("\n<tools>\n")[1].split("\n</tools>")[0].split("\n")
    return [json.loads(line)["function"] for line in lines]
