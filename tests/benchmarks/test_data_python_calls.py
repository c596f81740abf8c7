"""Calls written as Python source, read without running them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.data.python_calls import read_call
from job.demo.hermes import Unusable

_FUNCTIONS: dict[str, dict[str, Any]] = {
    "sort": {"parameters": {"properties": {"file_name": {}, "reverse": {}}}},
    "now": {"parameters": {}},
}


@pytest.mark.parametrize(
    ("source", "name", "arguments"),
    [
        ("now()", "now", {}),
        ("sort('a.txt')", "sort", {"file_name": "a.txt"}),
        ("sort('a.txt', reverse=True)", "sort", {"file_name": "a.txt", "reverse": True}),
        ("unknown(x=1)", "unknown", {"x": 1}),
        ("api.get(x=-1.5)", "api.get", {"x": -1.5}),
        ("f(x=[1, (2, 3)], y={'a': None})", "f", {"x": [1, [2, 3]], "y": {"a": None}}),
        ("f(x={1: 'one'})", "f", {"x": {"1": "one"}}),
        ("f(x='it\\'s', y=\"ü\")", "f", {"x": "it's", "y": "ü"}),
    ],
)
def test_a_call_is_read(source: str, name: str, arguments: dict[str, Any]) -> None:
    assert read_call(source, _FUNCTIONS) == {"name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("sort(", "not one call"),
        ("a = sort()", "not one call"),
        ("'sort'", "not one call"),
        ("now('a')", "an argument without a name"),
        ("unknown('a')", "an argument without a name"),
        ("sort(name)", "no value"),
        ("sort(open('a.txt'))", "no value"),
        ("sort(*names)", "no value"),
        ("sort(**options)", "no value"),
        ("sort({1, 2})", "no value"),
        ("sort(b'a')", "no value"),
    ],
)
def test_what_is_no_plain_call_is_refused(source: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        read_call(source, _FUNCTIONS)
