"""The leaderboard's schemas and accepted answers, as JSON Schema and one JSON value."""

from __future__ import annotations

from typing import Any, Final

_TYPES: Final = {
    "dict": "object",
    "float": "number",
    "tuple": "array",
    "string": "string",
    "integer": "integer",
    "boolean": "boolean",
    "array": "array",
}
"""Their name → JSON Schema's. `any` has no counterpart: without a type, any value is valid."""

_NOT_JSON_SCHEMA: Final = ("type", "optional")

_OMITTED: Final = ""
"""As an accepted value it means that the argument may be left out."""


class UnknownType(ValueError):
    """A type name that is neither the leaderboard's nor JSON Schema's."""


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema in JSON Schema's words, all the way down. Raises `UnknownType`.

    `optional` goes: JSON Schema says the same with `required`. Property names are never touched,
    even where one is called `type`.
    """
    converted: dict[str, Any] = {}
    name = schema.get("type", "any")
    if name != "any":
        if name not in _TYPES:
            raise UnknownType(f"'{name}'")
        converted["type"] = _TYPES[name]
    converted |= {key: value for key, value in schema.items() if key not in _NOT_JSON_SCHEMA}
    if "properties" in schema:
        converted["properties"] = {
            key: json_schema(inner) for key, inner in schema["properties"].items()
        }
    if "items" in schema:
        converted["items"] = json_schema(schema["items"])
    return converted


def first_accepted(accepted: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """One value for each argument: the first of those that the leaderboard accepts.

    An argument that may be left out is left out, unless `schema` requires it. Objects inside a
    value list accepted values again, and are resolved in the same way.
    """
    properties = schema.get("properties", {})
    chosen = {}
    for name, listed in accepted.items():
        alternatives = listed if isinstance(listed, list) else [listed]
        required = name in schema.get("required", ())
        if not required and (_OMITTED in alternatives or not alternatives):
            continue
        # A required argument with nothing listed is an empty array in their answers.
        values = [value for value in alternatives if value != _OMITTED] or alternatives or [[]]
        chosen[name] = _resolve(values[0], properties.get(name, {}))
    return chosen


def _resolve(value: Any, schema: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return first_accepted(value, schema)
    if isinstance(value, list):
        return [_resolve(item, schema.get("items", {})) for item in value]
    return value
