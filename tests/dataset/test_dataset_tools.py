"""Declared tools, read once for all rows that share them, and in bounded memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import job.dataset.rows.tools
from job.dataset import Row, read_rows
from job.dataset.recent import Recent
from job.dataset.rows.row import Problems
from job.dataset.rows.tools import ToolReader, read_toolbox
from tests.dataset.standin import WEATHER, data_file
from tests.dataset.written import (
    A,
    U,
    accepted,
    answered,
    call_text,
    called,
    hermes,
    messages,
    tool,
)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every list of tools that is really looked at."""
    seen: list[object] = []

    def look(raw: list[Any], **more: Any) -> Any:
        seen.append(raw)
        return read_toolbox(raw, **more)

    monkeypatch.setattr(job.dataset.rows.tools, "read_toolbox", look)
    return seen


@pytest.mark.parametrize(
    "line",
    [
        answered(called({"city": "Oslo"})),
        answered(called({"city": "Oslo"}), tools=json.dumps([WEATHER])),
        hermes([WEATHER], call_text({"city": "Oslo"})),
    ],
)
def test_rows_that_share_their_tools_look_at_them_only_twice(
    line: dict[str, Any], looks: list[object], tmp_path: Path
) -> None:
    rows = list(read_rows([data_file(tmp_path / "data.jsonl", *[line] * 20)]))
    assert all(isinstance(row, Row) for row in rows)
    assert len(looks) == 2  # what comes once is not kept


def test_what_is_wrong_with_shared_tools_is_told_in_every_row(tmp_path: Path) -> None:
    for line in (
        messages(U, A, tools=[tool({"type": "strin"})]),
        hermes([tool({"type": "strin"})], "Hi."),
        messages(U, A, tools=[tool({"type": "dict"})]),
    ):
        rows = list(read_rows([data_file(tmp_path / "data.jsonl", *[line] * 4)]))
        told = [row.warnings if isinstance(row, Row) else row.problems for row in rows]
        assert told[0]
        assert told == [told[0]] * 4


def test_one_row_never_sees_the_tools_of_another(tmp_path: Path) -> None:
    first, second = (
        answered(called({}), tools=[tool({"required": required, "properties": {"a": {}}})])
        for required in ([], ["a"])
    )
    rows = list(read_rows([data_file(tmp_path / "data.jsonl", *[first, second] * 5)]))
    assert [isinstance(row, Row) for row in rows] == [True, False] * 5


def test_true_and_1_are_other_tools(tmp_path: Path) -> None:
    one, true = ([tool({"properties": {"a": {"const": const}}})] for const in (1, True))
    lines = [answered(called({"a": 1}), tools=tools) for tools in (one, true)] * 3
    rows = list(read_rows([data_file(tmp_path / "data.jsonl", *lines)]))
    assert [isinstance(row, Row) for row in rows] == [True, False] * 3


def test_whole_numbers_in_tools_stay_exact(tmp_path: Path) -> None:
    declared = [tool({"properties": {"n": {"maximum": 2**70 + 1}}})]
    for tools in (declared, json.dumps(declared)):
        row = accepted(tmp_path, answered(called({"n": 2**65 + 1}), tools=tools))
        assert row.tools == declared
        assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == {"n": 2**65 + 1}


def test_a_system_turn_with_several_blocks_declares_all_of_them() -> None:
    text = f"In <tools></tools>: <tools>{json.dumps(WEATHER)}</tools> <tools>[{{}}]</tools> <tools>"
    found = Problems()
    box = ToolReader().from_text(text, "messages[{}]".format, found)
    assert box is not None
    assert set(box.names()) == {"weather"}
    assert [problem.reason for problem in found.found] == [
        "tool 2 in <tools>: has no name that is a string"
    ]


def test_what_is_asked_for_again_is_kept_and_the_rest_forgotten() -> None:
    recent: Recent[int] = Recent(limit=10)
    for _ in range(2):
        recent.put("aaaa", 1)
    recent.put("once", 2)
    assert (recent.get("aaaa"), recent.get("once")) == (1, None)
    for key in ("bbbb", "cccc", "dddd", "eeee"):
        for _ in range(2):
            recent.put(key, 3)
        assert recent.get("aaaa") == 1
    assert recent.get("bbbb") is None


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 9))))
def test_no_more_is_kept_than_twice_the_limit(puts: list[tuple[str, int]]) -> None:
    recent: Recent[int] = Recent(limit=12)
    for letter, length in puts:
        key = letter * length
        recent.put(key, length)
        found = recent.get(key)
        assert found in (None, length)
        kept = recent._young.keys() | recent._old.keys()
        assert sum(map(len, kept)) <= 24
