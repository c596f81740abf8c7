"""Settings from the environment, with every problem in one error."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from job.config.settings import PREFIX, Settings
from job.errors import Problem, SettingsError
from job.redact import redact
from job.validators import MayHoldPassword

_SERVICE_LINK: Final = re.compile(
    r"(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)$"
)
"""Variables that Kubernetes adds for a Service called `forge-…` (enableServiceLinks)."""
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
"""The value of one more such variable, `FORGE_…_PORT`: told from a misspelled setting by it."""


SETTINGS_VARIABLE: Final = "FORGE_SETTINGS"
"""Any settings as one JSON object, which outranks their own variables: for templates that can't
make a variable for each, such as Argo's."""


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with `overrides` (by field name) on top.

    Raises `SettingsError` with every problem that there is.
    """
    problems = list(_unknown_names(os.environ))
    try:
        together = settings_in(os.environ.get(SETTINGS_VARIABLE) or "{}", SETTINGS_VARIABLE)
    except SettingsError as error:
        problems, together = [*problems, *error.problems], {}
    try:
        settings = Settings(**(together | overrides))
    except ValidationError as error:
        problems += [_as_problem(dict(details)) for details in error.errors()]
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def settings_in(text: str, where: str) -> dict[str, str]:
    """Settings of a JSON object, `{"learning_rate": 1e-4}`, as their variables would hold them.

    Raises `SettingsError` with all that is wrong, `where` being what holds the text.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SettingsError(Problem(where, f"is not JSON: {error}", _EXAMPLE)) from None
    if not isinstance(found, dict):
        raise SettingsError(Problem(where, "is no JSON object", _EXAMPLE))
    problems = [problem for name, value in found.items() if (problem := _wrong(where, name, value))]
    if problems:
        raise SettingsError(problems)
    return {name: held for name, value in found.items() if (held := _as_text(value))}


_ALONE: Final = {
    "run_id": "by which logs and pods are found",
    "termination_log": "which is needed when the settings can't be read",
}
"""What is read before the settings are, or by others."""
_EXAMPLE: Final = 'write {"learning_rate": 0.0001, "lora_r": 16}'


def _wrong(where: str, name: str, value: object) -> Problem | None:
    if name in _ALONE:
        return Problem(where, f"holds {name}", f"set {PREFIX}{name.upper()}, {_ALONE[name]}")
    if name not in Settings.model_fields:
        return Problem(where, f"'{name}' is not a setting", _nearest(name, Settings.model_fields))
    if _as_text(value) is None:
        found = _shown(PREFIX + name.upper(), json.dumps(value))
        kinds = "a string, a number, true, false or a list of strings"
        return Problem(where, f"{name} must be {kinds}; found {found}", _EXAMPLE)
    return None


def _as_text(value: object) -> str | None:
    """As a variable would hold it; None for what no variable can hold."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    return None


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {prefix}{nearest[0]}?"
    return "see the settings table in README.md"


def _unknown_names(environ: Mapping[str, str]) -> Iterator[Problem]:
    fields = {name.upper() for name in Settings.model_fields}
    known = {*fields, SETTINGS_VARIABLE.removeprefix(PREFIX)}
    for name in sorted(environ):
        # Whatever the case: pydantic doesn't mind it, and takes forge_seed for FORGE_SEED.
        capitals = name.upper()
        setting = capitals.removeprefix(PREFIX)
        if not capitals.startswith(PREFIX) or _is_service_link(name, environ[name]):
            continue
        if setting not in known:
            # Without the prefix: it would make any two names alike.
            yield Problem(name, "is not a setting", _nearest(setting, fields, PREFIX))
        elif name != capitals:
            yield Problem(name, "is not in capitals", f"write {capitals}")


def _is_service_link(name: str, value: str) -> bool:
    if name.endswith("_PORT") and _SERVICE_ADDRESS.match(value):
        return True
    return bool(_SERVICE_LINK.search(name))


def _as_problem(details: dict[str, Any]) -> Problem:
    where = PREFIX + str(details["loc"][0]).upper() if details["loc"] else "settings"
    field = Settings.model_fields.get(str(details["loc"][0])) if details["loc"] else None
    meaning = field.description or "" if field else ""
    if details["type"] == "missing":
        return Problem(where, "is required and not set", meaning)
    if details["type"] == "extra_forbidden":
        return Problem(where, "is not a setting")
    value = str(details["input"])
    if isinstance(details.get("ctx", {}).get("error"), MayHoldPassword):
        return Problem(where, details["msg"].removeprefix("Value error, "), meaning)
    if _SERVICE_ADDRESS.match(value):
        meaning = "Kubernetes set it for a Service of that name: set enableServiceLinks: false"
    message = redact(details["msg"].removeprefix("Value error, "))
    return Problem(where, f"{message}; found {_shown(where, value)}", meaning)


def _shown(where: str, value: str) -> str:
    """A value as an error may show it: never credentials."""
    if where == PREFIX + "PUSHGATEWAY_URL" or ("://" in value and "@" in value):
        return "a value that is not shown, as it may hold a password"
    value = redact(value)
    return repr(value if len(value) <= 100 else value[:100] + "…")
