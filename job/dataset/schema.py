"""A tool's parameters as JSON Schema: is it one, and do the arguments of a call fit it?

Compiled in Rust, offline: a `$ref` in the data never makes the job fetch anything. Most tools are
plain (flat, a few types), and most calls fit; both are told without compiling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from jsonschema_rs import (
    Draft4Validator,
    Draft202012Validator,
    FancyRegexOptions,
    RegexOptions,
    ValidationError,
    Validator,
    validator_for,
)

from job.dataset.foreign import as_json_schema
from job.dataset.words import brief, kind, path_of, shown

_MASK: Final = "the value"
"""What the library's messages say instead of the value, which may be long or a secret."""

_MOST_FAULTS: Final = 8
"""Of one call: the rest says no more."""

_BACKTRACKS: Final = 10_000
"""Steps that a pattern with look-around may take; all others run in linear time."""

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_ANNOTATED: Final = {"type", "description", "title", "default", "enum", "format"}
_FLAT: Final = {"type", "description", "title", "properties", "required", "additionalProperties"}
_REACHING: Final = {
    *("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "if", "not"),
    *("patternProperties", "dependentSchemas", "dependencies", "unevaluatedProperties"),
    *("additionalProperties", "propertyNames"),
}
"""With one of these beside `properties`, more arguments may be declared than it lists."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one argument."""

    path: str
    """Within the arguments: `.city`; empty for all of them."""
    reason: str
    hint: str = ""


class Schema:
    """The parameters of one tool."""

    __slots__ = ("_plain", "_raw", "_validator", "flaw", "foreign")

    def __init__(self, raw: dict[str, Any], *, plain: bool = False) -> None:
        """`plain`: `PLAIN` says so of `raw`, which is JSON Schema then, without a look."""
        self._raw = raw
        self._plain = plain and raw.get("type", "object") == "object" and raw.keys() <= _FLAT
        self._validator: Validator | None = None
        self.flaw = ""
        """Why `raw` is not JSON Schema; empty if it is."""
        self.foreign: tuple[str, ...] = ()
        """Type names that stand in it for those of JSON Schema: `dict`, `float`."""
        if not plain:
            self._raw, self.foreign = as_json_schema(raw)
            self._compile()

    def surely_fits(self, arguments: dict[str, Any]) -> bool:
        """Whether a plain schema has no fault with these arguments, and declares all of them.

        Cheaper than to compile the schema; what it says no to may fit as well.
        """
        return self._plain and _fits(arguments, self._raw)

    def faults(self, arguments: dict[str, Any]) -> list[Fault]:
        """Why a call with these arguments is not valid; empty if it is."""
        if self.flaw:
            return []
        validator = self._validator or self._compile()
        if validator is None or validator.is_valid(arguments):
            return []
        return list(islice(_explained(validator.iter_errors(arguments), self._raw), _MOST_FAULTS))

    def undeclared(self, arguments: dict[str, Any]) -> list[Fault]:
        """Arguments that the schema neither lists nor forbids."""
        properties = self._raw.get("properties")
        if not isinstance(properties, dict) or properties.keys() >= arguments.keys():
            return []
        if not _REACHING.isdisjoint(self._raw):
            return []
        names = [name for name in arguments if name not in properties]
        return [
            Fault(path_of([name]), "is not among the tool's parameters", _meant(name, properties))
            for name in names[:_MOST_FAULTS]
        ]

    def _compile(self) -> Validator | None:
        try:
            self._validator = _compiled(self._raw)
        except ValidationError as error:
            self.flaw = _flaw(error)
        except (ValueError, TypeError) as error:
            self.flaw = brief(str(error), 160)
        return self._validator


def _fits(arguments: dict[str, Any], schema: dict[str, Any]) -> bool:
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


def _compiled(schema: dict[str, Any]) -> Validator:
    """Raises `ValidationError` where `schema` is not JSON Schema, `ValueError` if it's too deep."""
    try:
        return validator_for(
            schema,
            pattern_options=RegexOptions(),
            offline=True,
            mask=_MASK,
            validate_formats=False,
        )
    except ValidationError:
        for draft, options in (
            # Look-around is no regular expression to the engine that is linear.
            (Draft202012Validator, FancyRegexOptions(backtrack_limit=_BACKTRACKS)),
            # OpenAPI's `exclusiveMinimum: true`.
            (Draft4Validator, RegexOptions()),
        ):
            try:
                if "$schema" not in schema:
                    return draft(
                        schema,
                        pattern_options=options,
                        offline=True,
                        mask=_MASK,
                        validate_formats=False,
                    )
            except ValidationError:
                continue
        raise


def _flaw(error: ValidationError) -> str:
    where = path_of(error.instance_path).removeprefix(".")
    at = f" at '{where}'" if where else ""
    return f"{at} {brief(error.message, 160)}".strip()


def _explained(errors: Iterator[ValidationError], schema: dict[str, Any]) -> Iterator[Fault]:
    for error in errors:
        path, detail = path_of(error.instance_path), error.kind.as_dict()
        match error.kind.name:
            case "type":
                asked = " or ".join(map(_a, detail["types"]))
                found = f"is {shown(error.instance)}, {kind(error.instance)}"
                yield Fault(path, f"{found}, but its schema asks for {asked}")
            case "required":
                name = str(detail["property"])
                yield Fault(path + path_of([name]), "is missing, but the schema requires it")
            case "enum":
                options = brief(", ".join(map(shown, detail["options"])), 120)
                yield Fault(path, f"is {shown(error.instance)}, but its schema allows {options}")
            case "additionalProperties":
                yield from _unexpected(path, detail["unexpected"], schema)
            case "pattern" if "acktrack" in type(error.kind).__name__:
                continue  # given up, not found wrong
            case _:
                yield Fault(path, brief(error.message, 160))


def _unexpected(path: str, names: list[str], schema: dict[str, Any]) -> Iterator[Fault]:
    properties = schema.get("properties") if not path else None
    for name in names[:_MOST_FAULTS]:
        hint = _meant(name, properties) if isinstance(properties, dict) else ""
        yield Fault(path + path_of([name]), "is not declared, and the schema allows no other", hint)


def _meant(name: str, declared: dict[str, Any]) -> str:
    close = get_close_matches(name[:80], [key[:80] for key in list(declared)[:200]], 1)
    return f"did you mean '{brief(close[0])}'?" if close else ""


def _a(type_name: str) -> str:
    if type_name == "null":
        return "null"
    return f"{'an' if type_name[0] in 'aio' else 'a'} {type_name}"


_SCALAR: Final = {
    "anyOf": [
        {"type": ["string", "boolean", "null"]},
        # Larger whole numbers were made floats by the parser.
        {"type": "number", "minimum": -(2**53), "maximum": 2**53},
    ]
}


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
            "minimum": {"type": "number"},
            "maximum": {"type": "number"},
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
