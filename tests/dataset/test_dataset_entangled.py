"""Schemas that refer to themselves: checked where that ends, refused where it would not."""

from __future__ import annotations

from typing import Any

import pytest

from job.dataset.rows.entangled import MOST_WAYS, References
from job.dataset.rows.schema import Schema


def levels(count: int) -> dict[str, Any]:
    """Each level refers twice to the next: two to the power of `count` ways."""
    both = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": both | {f"d{count}": {"type": "object"}}}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"child": value}
    return value


NODE: dict[str, Any] = {"type": "object", "properties": {"child": {"$ref": "#"}}}
OPTIONAL: dict[str, Any] = {
    "type": "object",
    "properties": {"child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
}
EITHER: dict[str, Any] = {
    "anyOf": [
        {"properties": {"child": {"$ref": "#"}}, "required": [name]} for name in ("one", "other")
    ]
}


@pytest.mark.parametrize("count", [24, 200])
def test_references_that_multiply_are_refused_at_once(count: int) -> None:
    """Left to the validator, 24 levels took all of the memory."""
    schema = Schema(levels(count))
    assert schema.flaw[0] == "refers to itself in too many ways to be checked"
    assert schema.faults({"a": 1}) == []


def test_a_few_levels_are_checked() -> None:
    schema = Schema(levels(5))
    assert schema.flaw[0] == ""
    assert schema.faults({}) == []


@pytest.mark.parametrize("raw", [NODE, OPTIONAL])
def test_a_tree_is_checked_to_any_depth(raw: dict[str, Any]) -> None:
    schema = Schema(raw)
    assert schema.faults(nested(60)) == []
    wrong = nested(60)
    wrong["child"]["child"] = 7
    assert schema.faults(wrong)


def test_circles_in_several_branches_end_with_the_depth() -> None:
    schema = Schema(EITHER)
    [fault] = schema.faults(nested(3))
    assert fault.path == ""
    [fault] = schema.faults(nested(40))
    assert "nest too deep to be checked" in fault.reason


@pytest.mark.parametrize(
    "raw",
    [
        {"$ref": "#/nowhere"},
        {"$ref": "#/enum/0", "enum": [{"$ref": "#"}]},
        {"$ref": 7},
        {"allOf": [{"$ref": "#/allOf/0"}]},
        {"properties": {"$ref": {"type": "string"}}},
    ],
)
def test_odd_references_are_counted_without_harm(raw: dict[str, Any]) -> None:
    assert References(raw).ways <= MOST_WAYS


def test_of_several_references_outside_the_same_one_is_named_each_time() -> None:
    names = [f"https://example.org/{n}" for n in range(8)]
    raw = {"properties": {name[-1]: {"$ref": name} for name in reversed(names)}}
    flaws = {Schema(raw).flaw[0] for _ in range(20)}
    assert flaws == {f"refers to '{names[0]}', which is never fetched"}
