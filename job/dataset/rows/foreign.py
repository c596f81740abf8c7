"""Schemas in the words of another language: `dict`, `float`, `String` for JSON Schema's types.

Generators of tools write the types of the language they are made for. The model reads them as they
stand; only to check the arguments of calls they are read as the JSON types that they mean.
"""

from __future__ import annotations

from typing import Any, Final

_JSON: Final = ("string", "integer", "number", "boolean", "array", "object", "null")
_MEANT: Final = {
    **dict.fromkeys(("str", "char", "character", "text", "date", "datetime"), "string"),
    **dict.fromkeys(("int", "long", "short", "byte", "bigint"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    "bool": "boolean",
    **dict.fromkeys(("list", "tuple", "set", "arraylist", "vector"), "array"),
    **dict.fromkeys(("dict", "dictionary", "map", "hashmap", "struct"), "object"),
    **dict.fromkeys(("none", "nonetype"), "null"),
    **{name: name for name in _JSON},  # in capitals: `String`, `ARRAY`
}
_ANY: Final = ("any", "*")
"""No type at all: every value is valid."""

_ONE: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_SEVERAL: Final = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


_KEYWORDS: Final = frozenset(
    (
        *(*_ONE, *_SEVERAL, *_NAMED, "type", "required", "enum", "const", "title", "description"),
        *("default", "examples", "deprecated", "readOnly", "writeOnly", "format", "propertyNames"),
        *("minProperties", "maxProperties", "unevaluatedProperties", "unevaluatedItems"),
        *("dependencies", "dependentRequired", "nullable", "discriminator", "xml", "externalDocs"),
    )
)


def lists_parameters(schema: dict[str, Any]) -> bool:
    """Whether it is no schema but a list of parameters by name (`{"city": {"type": "str"}}`, as
    xLAM's data have it): to JSON Schema names that mean nothing, so every call would be valid."""
    if "properties" in schema or not all(isinstance(value, dict) for value in schema.values()):
        return False
    return any(key not in _KEYWORDS and not key.startswith(("$", "x-")) for key in schema)


def as_json_schema(schema: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`schema` with the types that were meant, and the names that stood for them, each once.

    A name that means nothing stays, for the compiler to refuse. `nullable` becomes the type null.
    Nothing that stands where no schema does is touched, such as a property called `type`.
    """
    foreign: dict[str, None] = {}
    return _translated(schema, foreign), tuple(foreign)


def _translated(schema: Any, foreign: dict[str, None]) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in _ONE:
        if isinstance(result.get(key), dict):
            result[key] = _translated(result[key], foreign)
    for key in _SEVERAL:
        if isinstance(result.get(key), list):
            result[key] = [_translated(item, foreign) for item in result[key]]
    for key in _NAMED:
        if isinstance(result.get(key), dict):
            named = result[key].items()
            result[key] = {name: _translated(item, foreign) for name, item in named}
    _retyped(result, foreign)
    return result


def _retyped(schema: dict[str, Any], foreign: dict[str, None]) -> None:
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return
    meant = [_meaning(name, foreign) for name in names]
    if any(name in _ANY for name in meant):
        del schema["type"]
        return
    if schema.get("nullable") is True:
        meant.append("null")
        if isinstance(schema.get("enum"), list):
            schema["enum"] = [*schema["enum"], None]
    # Two names may mean one type, and JSON Schema wants each once.
    meant = list(dict.fromkeys(meant))
    schema["type"] = meant[0] if len(meant) == 1 else meant


def _meaning(name: str, foreign: dict[str, None]) -> str:
    if name in _JSON:
        return name
    lower = name.lower()
    if lower not in _MEANT and lower not in _ANY:
        return name
    foreign[name] = None
    return _MEANT.get(lower, lower)
