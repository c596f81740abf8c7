"""Settings from the environment, with every problem in one error."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from job.config.settings import PREFIX, Settings
from job.errors import Problem, SettingsError
from job.redact import redact

_SERVICE_LINK: Final = re.compile(
    r"(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)$"
)
"""Variables that Kubernetes adds for a Service called `forge-…` (enableServiceLinks)."""
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
"""The value of one more such variable, `FORGE_…_PORT`: told from a misspelled setting by it."""


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with `overrides` (by field name) on top.

    Raises `SettingsError` with every problem that there is.
    """
    problems = list(_unknown_names(os.environ))
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        problems += [_as_problem(dict(details)) for details in error.errors()]
        raise SettingsError(problems) from None
    if settings.trust_remote_code is not None and not settings.trusts_model:
        found = f"names {settings.trust_remote_code}, the model is {settings.base_model}"
        problems.append(
            Problem("FORGE_TRUST_REMOTE_CODE", found, "name the very model, or nothing")
        )
    if problems:
        raise SettingsError(problems)
    return settings


def _unknown_names(environ: Mapping[str, str]) -> Iterator[Problem]:
    fields = {name.upper() for name in Settings.model_fields}
    for name in sorted(environ):
        if (
            not name.startswith(PREFIX)
            or name.removeprefix(PREFIX) in fields
            or _is_service_link(name, environ[name])
        ):
            continue
        # Without the prefix: it would make any two names alike.
        nearest = difflib.get_close_matches(name.removeprefix(PREFIX), fields, n=1, cutoff=0.6)
        hint = (
            f"did you mean {PREFIX}{nearest[0]}?"
            if nearest
            else "see the settings table in README.md"
        )
        yield Problem(name, "is not a setting", hint)


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
    if _SERVICE_ADDRESS.match(value):
        meaning = "Kubernetes set it for a Service of that name: set enableServiceLinks: false"
    message = redact(details["msg"].removeprefix("Value error, "))
    return Problem(where, f"{message}; found {_shown(where, value)}", meaning)


def _shown(where: str, value: str) -> str:
    """A value as an error may show it: never credentials."""
    if where == PREFIX + "PUSHGATEWAY_URL":
        return "a value that is not shown, as it may hold a password"
    value = redact(value)
    return repr(value if len(value) <= 100 else value[:100] + "…")
