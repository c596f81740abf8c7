"""Python's type names as JSON Schema's, and lists of accepted values as one value."""

from __future__ import annotations

from typing import Any

import pytest

from job.demo.schema import UnknownType, first_accepted, json_schema


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"type": "dict", "properties": {}}, {"type": "object", "properties": {}}),
        ({"type": "float", "default": 0.5}, {"type": "number", "default": 0.5}),
        (
            {"type": "tuple", "items": {"type": "float"}},
            {"type": "array", "items": {"type": "number"}},
        ),
        ({"type": "any", "description": "data"}, {"description": "data"}),
        ({"description": "no type at all"}, {"description": "no type at all"}),
        ({"type": "integer", "optional": True}, {"type": "integer"}),
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "tuple"}}},
            {"type": "array", "items": {"type": "array", "items": {"type": "array"}}},
        ),
        (
            {"type": "dict", "properties": {"type": {"type": "float"}, "items": {"type": "any"}}},
            {"type": "object", "properties": {"type": {"type": "number"}, "items": {}}},
        ),
    ],
)
def test_types_become_json_schema_all_the_way_down(
    theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    assert json_schema(theirs) == ours


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(UnknownType, match="HashMap"):
        json_schema({"type": "dict", "properties": {"map": {"type": "HashMap"}}})


@pytest.mark.parametrize(
    ("accepted", "required", "chosen"),
    [
        ({"x": [5, 6]}, ["x"], {"x": 5}),
        ({"x": ["units", ""]}, [], {}),
        ({"x": ["", "units"]}, ["x"], {"x": "units"}),
        ({"x": [""]}, ["x"], {"x": ""}),
        ({"x": [False, ""]}, ["x"], {"x": False}),
        ({"x": [0]}, [], {"x": 0}),
        ({"x": []}, ["x"], {"x": []}),
        ({"x": []}, [], {}),
        ({"x": [[1, 2], [2, 1]]}, ["x"], {"x": [1, 2]}),
        ({"x": [{"inner": ["a", "b"], "rest": ["c", ""]}]}, ["x"], {"x": {"inner": "a"}}),
        (
            {"x": [[{"inner": ["a"]}, {"inner": ["b"]}]]},
            [],
            {"x": [{"inner": "a"}, {"inner": "b"}]},
        ),
        ({"x": [{"plain": 10.5}]}, [], {"x": {"plain": 10.5}}),
    ],
)
def test_the_first_accepted_value_is_taken(
    accepted: dict[str, Any], required: list[str], chosen: dict[str, Any]
) -> None:
    assert first_accepted(accepted, {"type": "object", "required": required}) == chosen


def test_what_an_inner_schema_requires_stays() -> None:
    inner = {"type": "object", "properties": {"unit": {"type": "string"}}, "required": ["unit"]}
    schema = {"type": "object", "properties": {"x": {"type": "array", "items": inner}}}
    assert first_accepted({"x": [[{"unit": ["m", ""]}]]}, schema) == {"x": [{"unit": "m"}]}
