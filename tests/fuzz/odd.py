"""What no one should write, but someone will: texts, values, keys, JSON Schemas."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

SECRET: Final = "ghp_" + "a1B2c3" * 6

TAGS: Final = (
    *("<tool_call>", "</tool_call>", "<tools>", "</tools>", "<tool_response>", "<think>"),
    *("</think>", "</tool_response>", '<tool_call>\n{"name": "weather", "arguments": {}}\n'),
)
ODD: Final = (
    *("", " ", "\n", "\r\n", "\t\n ", "\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\u2028", "\v"),
    *("\ufeff", "\ufffd", "\uffff", "\U0010ffff", "\ud800", "\udc00x", "\u200b", "\u200d", "\xa0"),
    *("\u202e\u05e9\u05dc\u05d5\u05dd", "\u0301", "e\u0301", "\u00e9", "\u1112\u1161\u11ab"),
    *("\ufb01", "\u212b", "\u2126", "\u0344", "\U0001f469\u200d\U0001f467", "\u0130\u0131\u017f"),
    *("null", "None", "NaN", "{}", "[]", '"', "\\", "\\u0022", "'", "{{ 7 }}"),
    *("</script><img src=x>", "{% raw %}", "https://me:hunter22@example.org/", "a" * 300),
    "-----BEGIN PRIVATE KEY-----",
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**40, 0.1, -0.0, 1e308),
    *("", " ", "1", "null", "[]", "{}", [], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}}),
)
EXTREMES: Final = (
    *("@raw:1e999@", "@raw:-0@", "@raw:1E400@", "@raw:1.0e-999@", "@raw:NaN@", "@raw:0123@"),
    *(f"@raw:{'7' * digits}@" for digits in (19, 25, 309, 5000)),
    *(f"@raw:{'[' * depth}{']' * depth}@" for depth in (10, 63, 65, 127, 129, 255, 300, 985, 1030)),
)
KEYS: Final = (
    *("messages", "conversations", "tools", "system", "functions", "images", "id", "role"),
    *("content", "tool_calls", "tool_call_id", "name", "reasoning_content", "weight", "function"),
    *("function_call", "thinking", "from", "value", "arguments", "parameters", "type", "", "a b"),
    *("inputSchema", "description", "source", "\ud800", "\x00", "kéy", "Role", "items", "audio"),
)
ROLES: Final = (
    *("system", "user", "assistant", "tool", "human", "gpt", "function_call", "observation"),
    *("developer", "function", "ipython", "USER", "model"),
)


def _each(keyword: str, *values: Any) -> list[dict[str, Any]]:
    return [{keyword: value} for value in values]


def _bomb(levels: int, innermost: dict[str, Any]) -> dict[str, Any]:
    """A small schema with 2 ** levels ways through it."""
    names = [f"d{n}" for n in range(levels + 1)]
    both = {name: {"allOf": [{"$ref": f"#/$defs/{next_}"}] * 2} for name, next_ in pairwise(names)}
    return {"$ref": "#/$defs/d0", "$defs": both | {names[-1]: innermost}}


SCHEMAS: Final[tuple[dict[str, Any], ...]] = (
    *_each("type", "str", "dict", "any", "tuple", "nothing", "", 3, [], ["float"]),
    *_each("type", ["string", "String"], ["null", "integer"], None, {"a": 1}),
    *_each("$ref", "#", "#/$defs/a", "#/nowhere", "file:///etc/hosts", "x.json", "", 7),
    *_each("$ref", "http://127.0.0.1:9/s.json", "https://json-schema.org/schema"),
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["b"]}, {"type": "null"}]},
    *_each("pattern", "(", "(a+)+$", "^(?=a)(a+)+$", "(?<!x)y", "(a{999}){999}", 1),
    *_each("pattern", "\\p{L}", "[[:alpha:]]", "\\Z", "(?i)x", "\\u{1F600}"),
    *_each("enum", [], [1, 1], {}, [{"a": []}], ["x"] * 3, [2**70], "abc"),
    *_each("minItems", 2**63, 2**64, 1e308, -1, "1", 0.5),
    *_each("multipleOf", 0, 1e-308, -1, 0.1),
    *_each("maximum", 2**70, -1e308, None),
    *_each("required", "a", ["a", "a"], [1], ["\ud800"], {}, True),
    *_each("properties", [], None, {"a": True}, {"a": None}, {"": {}}),
    *_each("items", [], [{}], False, [{"type": "dict"}], {"items": {}}),
    *_each("additionalProperties", False, {"type": "int"}, None),
    *_each("$schema", "http://json-schema.org/draft-04/schema#", "urn:x", "", 4),
    *_each("$id", "http://a/b", ":::", "#", 5),
    *({"not": {}}, {"const": None}, {"if": {}, "then": False}, {"uniqueItems": True}),
    *({"propertyNames": {"maxLength": 0}}, {"dependentRequired": {"a": ["b"]}}, {"nullable": True}),
    *({"format": "uuid"}, {"format": 3}, {"contains": {}, "minContains": 2**64}),
    *({"unevaluatedProperties": False}, {"exclusiveMinimum": True, "minimum": 3}),
    *(_bomb(levels, {"type": "null"}) for levels in (9, 40)),
    *({"$dynamicRef": "#a"}, {"$recursiveRef": "#"}, {"$anchor": "a b"}, {"default": "\x00"}),
)
