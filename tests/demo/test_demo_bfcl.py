"""The leaderboard's own rows, all of them, as Hermes rows."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator, meta

from job.demo.bfcl import CATEGORIES, DEMO, Category, Conversion, convert, main, write
from job.errors import DataError

_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>")


@pytest.fixture(scope="session")
def everything(leaderboard: Path) -> Conversion:
    return convert(leaderboard)


@pytest.fixture(scope="session")
def demo(leaderboard: Path) -> Conversion:
    return convert(
        leaderboard, DEMO.categories, max_chars=DEMO.max_chars, unique_tools=DEMO.unique_tools
    )


def _tools(row: dict[str, Any]) -> dict[str, Any]:
    lines = row["messages"][0]["content"].split("<tools>\n")[1].split("\n</tools>")[0].split("\n")
    functions = [json.loads(line)["function"] for line in lines]
    return {function["name"]: function["parameters"] for function in functions}


def _calls(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(text) for text in _CALL.findall(row["messages"][-1]["content"])]


def test_every_call_of_every_row_is_valid_against_its_own_schema(everything: Conversion) -> None:
    assert len(everything.rows) > 3400
    for row in everything.rows:
        tools = _tools(row)
        for schema in tools.values():
            assert meta.is_valid(schema), schema
        for call in _calls(row):
            schema = tools[call["name"]]
            Draft202012Validator(schema).validate(call["arguments"])
            assert set(call["arguments"]) <= set(schema["properties"]), row["id"]


def test_rows_have_calls_exactly_where_a_tool_fits(everything: Conversion) -> None:
    for row in everything.rows:
        names = [call["name"] for call in _calls(row)]
        if row["source"].endswith("irrelevance"):
            assert (row["scenario"], row["tool_name"], names) == ("no_tool", None, [])
            assert "tool_call" not in row["messages"][-1]["content"]
        else:
            several = len(names) > 1
            assert row["scenario"] == ("parallel_calls" if several else "single_call")
            assert row["tool_name"] == names[0]


def test_turns_alternate_and_the_tags_are_unambiguous(everything: Conversion) -> None:
    for row in everything.rows:
        system, *turns = row["messages"]
        assert system["role"] == "system"
        assert system["content"].count("<tools>") == 1, row["id"]
        expected = ["user", "assistant"] * (len(turns) // 2)
        assert [turn["role"] for turn in turns] == expected, row["id"]


def test_what_contradicts_itself_is_left_out_with_the_reason(everything: Conversion) -> None:
    assert everything.reasons() == {
        "answer contradicts the schema": 18,
        "same prompt as an earlier row": 6,
        "answer has an undeclared argument": 4,
        "no tool declared": 4,
        "turns don't alternate": 3,
    }
    details = {row.id: row.detail for row in everything.left_out}
    assert details["live_multiple_595-158-1"] == 'number_of_rooms: 2 is not of type "string"'


def test_every_category_is_read(everything: Conversion) -> None:
    sources = Counter(row["source"] for row in everything.rows)
    assert set(sources) == {f"bfcl_v4/{name}" for name in CATEGORIES}
    assert sources["bfcl_v4/simple_python"] == 400


def test_parallel_calls_are_several_blocks_in_the_accepted_order(everything: Conversion) -> None:
    row = next(row for row in everything.rows if row["id"] == "parallel_0")
    assert row["messages"][-1]["content"] == (
        '<tool_call>\n{"name": "spotify.play", "arguments": '
        '{"artist": "Taylor Swift", "duration": 20}}\n</tool_call>\n'
        '<tool_call>\n{"name": "spotify.play", "arguments": '
        '{"artist": "Maroon 5", "duration": 15}}\n</tool_call>'
    )


def test_inner_objects_are_resolved_too(everything: Conversion) -> None:
    row = next(row for row in everything.rows if row["id"] == "simple_python_96")
    assert _calls(row)[0]["arguments"]["conditions"] == [
        {"field": "age", "operation": ">", "value": "25"},
        {"field": "job", "operation": "=", "value": "engineer"},
    ]


def test_ids_are_unique(everything: Conversion) -> None:
    assert len({row["id"] for row in everything.rows}) == len(everything.rows)


def test_the_demo_holds_tools_apart_and_has_some_refusals(demo: Conversion) -> None:
    seen: Counter[str] = Counter(name for row in demo.rows for name in _tools(row))
    assert max(seen.values()) == 1
    refusals = sum(row["scenario"] == "no_tool" for row in demo.rows)
    assert 0.05 < refusals / len(demo.rows) < 0.2
    lengths = [sum(len(m["content"]) for m in row["messages"]) for row in demo.rows]
    assert max(lengths) <= DEMO.max_chars


def test_the_same_bytes_every_time(leaderboard: Path, tmp_path: Path) -> None:
    arguments = ["--source", str(leaderboard), "--max-chars", "1000", "--unique-tools"]
    arguments += ["--categories", "simple_python", "irrelevance=20"]
    written = []
    for name in ("one.jsonl", "sub/two.jsonl"):
        assert main([*arguments, "--out", str(tmp_path / name)]) == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert written[0].count(b'"no_tool"') == 20


def test_an_interrupted_write_leaves_no_rows(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(TypeError):
        write([{"id": "fine"}, {"id": object()}], out)
    assert not out.exists()


@pytest.mark.parametrize("text", ["simple_java", "simple_python=0", "simple_python=-1", "=3"])
def test_a_category_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not one of|positive whole number"):
        Category.parse(text)


def test_a_category_with_a_limit() -> None:
    assert Category.parse("multiple=40") == Category("multiple", 40)
    assert Category.parse("multiple") == Category("multiple")


def test_a_folder_without_the_data_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    assert main(["--source", str(tmp_path), "--out", str(out)]) == DataError.exit_code
    assert "BFCL_v4_simple_python.json: is missing" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("line", ["{broken", "[]", "{}"])
def test_a_damaged_file_names_the_line(leaderboard: Path, tmp_path: Path, line: str) -> None:
    name = "BFCL_v4_simple_python.json"
    (tmp_path / "possible_answer").mkdir()
    shutil.copy(leaderboard / "possible_answer" / name, tmp_path / "possible_answer")
    lines = (leaderboard / name).read_text(encoding="utf-8").splitlines()
    lines[2] = line
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}:3: is"):
        convert(tmp_path, [Category("simple_python")])
