"""A tool's parameters as JSON Schema: is it one, and do the arguments of a call fit it?

Compiled in Rust, offline: a `$ref` in the data never makes the job fetch anything. Most tools are
plain (flat, a few types), and most calls fit; both are told without compiling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from jsonschema_rs import (
    Draft4Validator,
    Draft7Validator,
    FancyRegexOptions,
    RegexOptions,
    ValidationError,
    Validator,
    validator_for,
)

from job.dataset.rows.entangled import MOST_WAYS, References
from job.dataset.rows.foreign import as_json_schema, lists_parameters
from job.dataset.rows.words import brief, kind, path_of, shown

_MASK: Final = "the value"
"""What the library's messages say instead of the value, which may be long or a secret."""

_MOST_FAULTS: Final = 8
"""Of one call: the rest says no more."""

_BACKTRACKS: Final = 10_000
"""Steps that a pattern with look-around may take; all others run in linear time."""

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

    __slots__ = ("_raw", "_references", "_validator", "flaw", "foreign")

    def __init__(self, raw: dict[str, Any], *, plain: bool = False) -> None:
        """`plain`: `PLAIN_TOOLS` says so of `raw`, which is JSON Schema then, without a look."""
        self._raw = raw
        self._references: References | None = None
        self._validator: Validator | None = None
        self.flaw = ("", "")
        """Why `raw` is not JSON Schema, and what to do; empty if it is."""
        self.foreign: tuple[str, ...] = ()
        """Type names that stand in it for those of JSON Schema: `dict`, `float`."""
        if not plain:
            self._raw, self.foreign = as_json_schema(raw)
            self._references = References(self._raw)
            if lists_parameters(raw):
                self.flaw = _LIST
            else:
                self._compile()

    def faults(self, arguments: dict[str, Any]) -> list[Fault]:
        """Why a call with these arguments is not valid; empty if it is."""
        if self.flaw[0]:
            return []
        if self._references is not None and self._references.multiply(arguments):
            reason = "nest too deep to be checked: the schema refers to itself in several branches"
            return [Fault("", reason, _PER_SCHEMA)]
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
        if self._references is not None and self._references.ways > MOST_WAYS:
            self.flaw = "refers to itself in too many ways to be checked", "write it out flatter"
            return None
        try:
            self._validator = _compiled(self._raw)
        except ValidationError as error:
            self.flaw = _flaw(error, self._references.outside if self._references else ())
        except (ValueError, TypeError) as error:
            self.flaw = brief(str(error), 160), "see json-schema.org"
        return self._validator


_LIST: Final = (
    "they list parameters by name, as xLAM's data do, without 'properties'",
    'write {"type": "object", "properties": {…}, "required": […]}',
)


def _compiled(schema: dict[str, Any]) -> Validator:
    """Raises `ValidationError` where `schema` is not JSON Schema, `ValueError` if it's too deep."""
    try:
        return _offline(validator_for, schema, RegexOptions())
    except ValidationError as error:
        if "regex" in error.message:
            # Look-around is no regular expression to the engine that is linear.
            options = FancyRegexOptions(backtrack_limit=_BACKTRACKS)
            return _offline(validator_for, schema, options)
        at = error.instance_path[-1:]
        if at == ["items"] and isinstance(error.instance, list) and "$schema" not in schema:
            # A tuple, as JSON Schema had it until 2019.
            return _offline(Draft7Validator, schema, RegexOptions())
        if at in (["exclusiveMinimum"], ["exclusiveMaximum"]) and "$schema" not in schema:
            # OpenAPI has `true` there, as JSON Schema once did.
            return _offline(Draft4Validator, schema, RegexOptions())
        raise


def _offline(
    compiler: Callable[..., Validator],
    schema: dict[str, Any],
    options: RegexOptions | FancyRegexOptions,
) -> Validator:
    return compiler(
        schema, pattern_options=options, offline=True, mask=_MASK, validate_formats=False
    )


_TYPES: Final = "string, number, integer, boolean, array, object, null"


def _flaw(error: ValidationError, outside: Collection[str]) -> tuple[str, str]:
    """Why a schema is none, and what to do."""
    keys = error.instance_path
    at = f"at '{path_of(keys).removeprefix('.')}': " if keys else ""
    if named := _RESOURCE.match(error.message):
        # Of several the validator names any one, another at the next run.
        name = min(outside, default=named[1])
        return f"refers to '{brief(name)}', which is never fetched", "copy it into the schema"
    if error.message.startswith("Unknown meta-schema"):
        return "has a '$schema' that is not known", "leave it out, or name a draft of JSON Schema"
    if keys and keys[-1] == "type":
        return f"{at}{shown(error.instance)} is not a type", f"one of {_TYPES}"
    message = brief(error.message.removeprefix(_MASK + " "), 160)
    return f"{at}{message}", "see json-schema.org"


_RESOURCE: Final = re.compile(r"Resource '([^']*)' is not present")


def _explained(errors: Iterator[ValidationError], schema: dict[str, Any]) -> Iterator[Fault]:
    for error in errors:
        path, detail = path_of(error.instance_path), error.kind.as_dict()
        match error.kind.name:
            case "type":
                yield Fault(path, _of_type(error.instance, detail["types"]), _PER_SCHEMA)
            case "required":
                name = str(detail["property"])
                yield Fault(
                    path + path_of([name]), "is missing, but the schema requires it", _PER_SCHEMA
                )
            case "enum":
                options = brief(", ".join(map(shown, detail["options"])), 120)
                found = f"is {shown(error.instance)}, but its schema allows {options}"
                yield Fault(path, found, _PER_SCHEMA)
            case "additionalProperties":
                yield from _unexpected(path, detail["unexpected"], schema)
            case "pattern" if "acktrack" in type(error.kind).__name__:
                continue  # given up, not found wrong
            case _:
                yield Fault(path, brief(error.message.removeprefix(_MASK + " "), 160), _PER_SCHEMA)


_PER_SCHEMA: Final = "change the call, or what the tool declares"


def _of_type(value: Any, types: list[str]) -> str:
    asked = " or ".join(map(_a, types))
    # Of null, true and false the value says what it is.
    what = "" if value is None or isinstance(value, bool) else f", {kind(value)}"
    return f"is {shown(value)}{what}, but its schema asks for {asked}"


def _unexpected(path: str, names: list[str], schema: dict[str, Any]) -> Iterator[Fault]:
    properties = schema.get("properties") if not path else None
    for name in names[:_MOST_FAULTS]:
        hint = _meant(name, properties) if isinstance(properties, dict) else _PER_SCHEMA
        yield Fault(path + path_of([name]), "is not declared, and the schema allows no other", hint)


def _meant(name: str, declared: dict[str, Any]) -> str:
    close = get_close_matches(name[:80], [key[:80] for key in list(declared)[:200]], 1)
    return f"did you mean '{brief(close[0])}'?" if close else _PER_SCHEMA


def _a(type_name: str) -> str:
    if type_name == "null":
        return "null"
    return f"{'an' if type_name[0] in 'aio' else 'a'} {type_name}"
