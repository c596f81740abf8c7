"""Ordinary tools, as most are: what is known of them without compiling their schemas.

Each of the two looks only says yes where the full check would; `schema` takes care of the rest.
"""

from __future__ import annotations

from typing import Any, Final

from jsonschema_rs import Draft202012Validator

_TYPES: Final = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def fits(arguments: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether arguments are valid by a schema that is plain, and all of them declared."""
    if schema.get("type", "object") != "object" or "enum" in schema:
        return False
    properties = schema.get("properties", {})
    for name, value in arguments.items():
        spec = properties.get(name)
        if spec is None:
            return False
        kind = type(value)
        if kind not in _TYPES.get(spec.get("type"), ()):
            return False
        if kind is str:
            if "enum" in spec and value not in spec["enum"]:
                return False
        # In Python True is in [1]: with more than a type to heed, the validator is asked.
        elif "enum" in spec or "minimum" in spec or "maximum" in spec:
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
