"""Tools as most are: what is known of them without compiling their schemas.

Each of the two looks only says yes where the full check would; `schema` takes care of the rest.
"""

from __future__ import annotations

from typing import Any, Final

from jsonschema_rs import Draft202012Validator

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_ANNOTATED: Final = {"type", "description", "title", "default", "enum", "format"}
_FLAT: Final = {"type", "description", "title", "properties", "required", "additionalProperties"}


def is_flat(schema: dict[str, Any]) -> bool:
    """Whether `fits` may say yes for a plain schema."""
    return schema.get("type", "object") == "object" and schema.keys() <= _FLAT


def fits(arguments: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether arguments are valid by a plain, flat schema, and all of them declared."""
    properties = schema.get("properties", {})
    for name, value in arguments.items():
        spec = properties.get(name)
        if spec is None or not spec.keys() <= _ANNOTATED:
            return False
        if type(value) not in _KINDS.get(spec.get("type"), ()):
            return False
        # In Python True is in [1]; strings are the only enums worth the shortcut.
        if "enum" in spec and not (type(value) is str and value in spec["enum"]):
            return False
    required = schema.get("required")
    return not required or arguments.keys() >= set(required)


# Larger whole numbers were made floats by the parser.
_NUMBER: Final = {"type": "number", "minimum": -(2**53), "maximum": 2**53}
_SCALAR: Final = {"anyOf": [{"type": ["string", "boolean", "null"]}, _NUMBER]}


def _plain(levels: int) -> dict[str, Any]:
    """JSON Schema of a schema that nests no deeper than `levels` and has nothing odd in it."""
    inner: dict[str, Any] | bool = _plain(levels - 1) if levels else False
    return {
        "type": "object",
        "properties": {
            "type": {"enum": ["string", "integer", "number", "boolean", "array", "object", "null"]},
            "description": {"type": "string"},
            "title": {"type": "string"},
            "default": _SCALAR,
            "enum": {"type": "array", "minItems": 1, "items": _SCALAR},
            "minimum": _NUMBER,
            "maximum": _NUMBER,
            "properties": {"type": "object", "additionalProperties": inner},
            "items": inner,
            "required": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
            "additionalProperties": {"type": "boolean"},
        },
        "additionalProperties": False,
    }


_FUNCTION: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "description": {"type": "string"},
        "parameters": _plain(4),
        "strict": {"type": "boolean"},
    },
    "required": ["name", "parameters"],
    "additionalProperties": False,
}

PLAIN_TOOLS: Final = Draft202012Validator(
    {
        "type": "array",
        "items": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"type": {"const": "function"}, "function": _FUNCTION},
                    "required": ["type", "function"],
                    "additionalProperties": False,
                },
                _FUNCTION,
            ]
        },
    }
)
"""Of a list of tools: all are written as most are, and their parameters are JSON Schema for sure.

What it says no to may be just as right; it then takes a closer look.
"""
