"""Calls against the schema of their tool: what is told, what is never fetched, what never hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator

from job.dataset import RejectedRow, Row
from job.dataset.rows.plain import PLAIN_TOOLS, fits
from job.dataset.rows.schema import Schema
from tests.dataset.written import (
    A,
    U,
    accepted,
    answered,
    call_text,
    called,
    hermes,
    messages,
    read,
    told,
    tool,
)

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class Listener(HTTPServer):
    """A web server that counts what is asked of it."""

    asked: list[str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/schema.json"


@pytest.fixture
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

        def log_message(self, *args: object) -> None:
            pass

    server = Listener(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("where", ["$ref", "$schema", "$id", "property", "$dynamicRef", "text"])
def test_the_data_never_make_the_job_fetch_anything(
    where: str, listener: Listener, tmp_path: Path
) -> None:
    inner = {"$ref": listener.address}
    variants: dict[str, dict[str, Any]] = {
        "property": {"properties": {"city": inner}},
        "text": {"properties": {"city": inner}},
        "$id": {"$id": listener.address, "properties": {"city": {"$ref": "other.json"}}},
    }
    parameters = CITY | variants.get(where, {where: listener.address})
    line = answered(called({"city": "Oslo"}), tools=[tool(parameters)])
    if where == "text":
        line = hermes([tool(parameters)], call_text({"city": "Oslo"}))
    row = read(tmp_path, line)
    assert listener.asked == []
    assert isinstance(row, RejectedRow)


def test_a_file_is_not_read_either(tmp_path: Path) -> None:
    path = tmp_path / "city.json"
    path.write_text('{"type": "string"}')
    parameters = {"properties": {"city": {"$ref": path.as_uri()}}}
    row = read(tmp_path, answered(called({"city": "Oslo"}), tools=[tool(parameters)]))
    assert [place for place, _ in told(row)] == ["tools[0]"]
    assert "never fetched" in told(row)[0][1]


def test_references_inside_the_schema_are_followed(tmp_path: Path) -> None:
    parameters = {
        "$defs": {"city": {"type": "string"}},
        "properties": {"city": {"$ref": "#/$defs/city"}},
    }
    tools = [tool(parameters)]
    accepted(tmp_path, answered(called({"city": "Oslo"}), tools=tools))
    assert isinstance(read(tmp_path, answered(called({"city": 1}), tools=tools)), RejectedRow)


@pytest.mark.parametrize(
    ("pattern", "refused"),
    [
        (r"^(a+)+$", True),
        (r"^(a|a)*$", True),
        (r"^(a|aa)+$", True),
        # Look-around needs an engine that backtracks: it gives up, and the call passes.
        (r"^(?:(?=a)a+)+$", False),
    ],
)
def test_a_pattern_can_not_keep_the_job_busy(pattern: str, refused: bool, tmp_path: Path) -> None:
    parameters = {"properties": {"city": {"type": "string", "pattern": pattern}}}
    line = answered(called({"city": "a" * 50_000 + "b"}), tools=[tool(parameters)])
    assert isinstance(read(tmp_path, line), RejectedRow if refused else Row)


def test_patterns_with_look_around_are_heeded(tmp_path: Path) -> None:
    in_value = {"properties": {"city": {"type": "string", "pattern": "^(?!Oslo)"}}}
    in_name = {"patternProperties": {"^(?!town)": {"enum": ["Bergen"]}}}
    for tools in ([tool(in_value)], [tool(in_name)]):
        accepted(tmp_path, answered(called({"city": "Bergen"}), tools=tools))
        row = read(tmp_path, answered(called({"city": "Oslo"}), tools=tools))
        assert isinstance(row, RejectedRow)


@pytest.mark.parametrize("key", ["parameters", "inputSchema", "input_schema"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_parameters_under_every_name(key: str, wrapped: bool, tmp_path: Path) -> None:
    function = {"name": "weather", key: CITY}
    declared = {"type": "function", "function": function} if wrapped else function
    for line in (
        answered(called({"city": 3}), tools=[declared]),
        hermes([declared], call_text({"city": 3})),
    ):
        assert "schema asks for a string" in told(read(tmp_path, line))[0][1]
    row = accepted(tmp_path, answered(called({"city": "Oslo"}), tools=[declared]))
    assert [place for place, _ in told(row)] == ([] if key == "parameters" else ["tools[0]"])


@pytest.mark.parametrize(
    ("foreign", "good", "bad"),
    [
        ("dict", {"a": 1}, []),
        ("float", 1.5, "x"),
        ("tuple", [1], {}),
        ("str", "x", 1),
        ("String", "x", 1),
        ("int", 1, 1.5),
        ("bool", True, 1),
        ("Boolean", False, "x"),
        ("list", [], {}),
        ("ArrayList", [], {}),
        ("HashMap", {}, []),
        ("ARRAY", [], "x"),
        (["str", "String"], "x", 1),
    ],
)
def test_types_of_other_languages_are_those_of_json(
    foreign: Any, good: Any, bad: Any, tmp_path: Path
) -> None:
    tools = [tool({"type": "dict", "properties": {"x": {"type": foreign}}})]
    row = accepted(tmp_path, answered(called({"x": good}), tools=tools))
    [(place, reason)] = told(row)
    assert place == "tools[0]"
    assert "'dict'" in reason
    assert row.tools == tools  # what the model reads stays as it is
    refused = read(tmp_path, answered(called({"x": bad}), tools=tools))
    assert [place for place, _ in told(refused)] == [
        "messages[1].tool_calls[0].function.arguments.x"
    ]


def test_any_is_no_constraint_and_a_property_called_type_is_one(tmp_path: Path) -> None:
    properties = {"x": {"type": "any"}, "type": {"type": "str"}, "y": {"items": {"type": "int"}}}
    tools = [tool({"properties": properties})]
    accepted(tmp_path, answered(called({"x": [None], "type": "a", "y": [1]}), tools=tools))
    refused = read(tmp_path, answered(called({"type": 1, "y": ["a"]}), tools=tools))
    assert [place.rpartition("arguments")[2] for place, _ in told(refused)] == [".type", ".y[0]"]


def test_openapis_words_are_understood(tmp_path: Path) -> None:
    properties = {
        "days": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
        "note": {"type": "string", "nullable": True, "enum": ["a", "b"]},
    }
    tools = [tool({"type": "object", "properties": properties})]
    accepted(tmp_path, answered(called({"days": 1, "note": None}), tools=tools))
    refused = read(tmp_path, answered(called({"days": 0, "note": "c"}), tools=tools))
    assert len(told(refused)) == 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"city": {"type": "str", "description": "a place"}},
        {"city": {"type": "str"}, "type": {"type": "str"}, "items": {}},
    ],
)
def test_parameters_without_properties_are_refused(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    """As xLAM has them. Every call would be valid: to JSON Schema such keys mean nothing."""
    row = read(tmp_path, answered(called({"zip": 2}), tools=[tool(parameters)]))
    assert isinstance(row, RejectedRow)
    [(path, reason)] = told(row)
    assert path == "tools[0]"
    assert "list parameters by name" in reason


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"additionalProperties": {"type": "string"}},
        {"x-order": {"a": 1}},
        {"$defs": {"a": {}}, "additionalProperties": {"$ref": "#/$defs/a"}},
        {"properties": {"city": {"type": "string"}}, "ui": {}},
        {"ui": {}, "description": "none"},
    ],
)
def test_a_schema_of_few_words_is_one_all_the_same(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    accepted(tmp_path, answered(called({"city": "Oslo"}), tools=[tool(parameters)]))


def test_tuples_as_they_were_until_2019_are_understood(tmp_path: Path) -> None:
    pair = {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}
    tools = [tool({"type": "object", "properties": {"pair": pair}})]
    accepted(tmp_path, answered(called({"pair": ["a", 1]}), tools=tools))
    row = read(tmp_path, answered(called({"pair": ["a", "b"]}), tools=tools))
    [(path, reason)] = told(row)
    assert path.endswith("arguments.pair[1]")
    assert "asks for an integer" in reason


def test_all_that_is_wrong_with_a_call_is_told(tmp_path: Path) -> None:
    parameters = CITY | {"properties": {"city": {}, "n": {"type": "integer"}, "m": {"enum": [1]}}}
    row = read(tmp_path, answered(called({"n": "x", "m": 2}), tools=[tool(parameters)]))
    assert [place.rpartition(".")[2] for place, _ in told(row)] == ["city", "n", "m"]


def test_a_long_or_secret_value_is_not_told(tmp_path: Path) -> None:
    key = "ghp_" + "a1B2" * 9
    parameters = {"properties": {"n": {"type": "integer"}, "m": {"type": "string", "maxLength": 1}}}
    arguments = {"n": key + " " + "x" * 9000, "m": "x" * 9000}
    row = read(tmp_path, answered(called(arguments), tools=[tool(parameters)]))
    assert isinstance(row, RejectedRow)
    text = json.dumps([str(problem) for problem in row.as_problems()])
    assert "a1B2" not in text
    assert len(text) < 1500


def test_an_argument_that_no_one_declared_is_warned_of(tmp_path: Path) -> None:
    tools = [tool(CITY | {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}})]
    for line, place in (
        (answered(called({"city": "Oslo", "dayz": 1}), tools=tools), ".function.arguments.dayz"),
        (hermes(tools, call_text({"city": "Oslo", "dayz": 1})), "messages[2].content"),
    ):
        row = accepted(tmp_path, line)
        [found] = row.warnings
        assert found.path.endswith(place)
        assert (found.reason, found.hint) == (
            "the argument 'dayz' of 'weather' is not among the tool's parameters",
            "did you mean 'days'?",
        )


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "object"},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "patternProperties": {"^c": {}}},
        {"properties": {"a": {}}, "$ref": "#/$defs/x", "$defs": {"x": {}}},
        {"properties": {"a": {}}, "anyOf": [{"properties": {"city": {}}}]},
    ],
)
def test_schemas_that_may_declare_more_warn_of_nothing(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    row = accepted(tmp_path, answered(called({"city": "Oslo"}), tools=[tool(parameters)]))
    assert not row.warnings


def test_a_tool_without_parameters_takes_any(tmp_path: Path) -> None:
    for declared in ({"name": "weather"}, {"name": "weather", "parameters": None}):
        accepted(tmp_path, answered(called({"x": 1}), tools=[declared]))
    accepted(tmp_path, messages(U, A, tools=[{"name": "weather"}]))


names = st.sampled_from(["a", "b", "type"])
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "x", "1"])
specs = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "strin"]),
        "enum": st.lists(scalars, max_size=3),
        "minimum": st.integers(-1, 1),
        "description": st.sampled_from(["x", 1]),
        "default": scalars | st.just([]),
        "properties": st.dictionaries(names, st.just({"type": "string"})),
        "items": st.just({"type": "string"}),
        "pattern": st.sampled_from(["x", "["]),
    },
)
schemas = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "string", "dict", 1]),
        "properties": st.dictionaries(names, specs, max_size=3),
        "required": st.lists(names, max_size=3),
        "additionalProperties": st.booleans(),
        "minProperties": st.integers(0, 2),
    },
)
calls = st.dictionaries(names, scalars | st.lists(scalars, max_size=2), max_size=3)


@settings(max_examples=500)
@given(parameters=schemas, arguments=calls)
def test_the_quick_looks_agree_with_the_validator(
    parameters: dict[str, Any], arguments: dict[str, Any]
) -> None:
    if not PLAIN_TOOLS.is_valid([tool(parameters)]):
        return
    # What is plain is JSON Schema: this would raise otherwise.
    validator = Draft202012Validator(parameters)
    careful = Schema(parameters)
    assert not careful.flaw[0]
    assert (not careful.faults(arguments)) == validator.is_valid(arguments)
    if fits(arguments, parameters):
        assert validator.is_valid(arguments)
        assert not careful.undeclared(arguments)


def test_the_quick_looks_say_yes_to_what_is_usual() -> None:
    parameters = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "days": {"type": "integer", "minimum": 1, "default": 1},
            "units": {"type": "string", "enum": ["metric", "imperial"]},
        },
        "required": ["city"],
    }
    assert PLAIN_TOOLS.is_valid([tool(parameters), tool(parameters)["function"]])
    assert fits({"city": "Oslo", "units": "metric"}, parameters)
