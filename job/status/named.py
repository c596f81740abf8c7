"""Which runs `status --all` is asked for by name: what `plan` wrote, or ids."""

from __future__ import annotations

import json
import re
from typing import Any

from job import validators as values
from job.errors import Problem, SettingsError


def run_ids(text: str, where: str, output_uri: str) -> list[str]:
    """Each once, in their order. `text` is `runs.json` of `plan --into`, of which runs with another
    output than `output_uri` are left out, or ids with white space or commas between them.

    Raises `SettingsError`, which names `where`, with all that are no ids; and where there is none,
    since what was to name them is empty then, and a table of nothing looks like a good end.
    """
    if text.lstrip().startswith("["):
        found = _planned(text, where, output_uri)
    else:
        found = [name for name in re.split(r"[\s,]+", text) if name]
    if not found:
        hint = f"give ids of runs below {output_uri}; without {where.split()[0]} all are shown"
        raise SettingsError(Problem(where, "names no run", hint))
    problems = [problem for name in found if (problem := _wrong(name, where))]
    if problems:
        raise SettingsError(problems)
    return list(dict.fromkeys(found))


def _planned(text: str, where: str, output_uri: str) -> list[str]:
    try:
        return [str(item["run-id"]) for item in json.loads(text) if _lies_below(item, output_uri)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        found = f"is not what plan --into wrote as runs.json: {type(error).__name__}: {error}"
        hint = "give that file, or ids of runs, one a line"
        raise SettingsError(Problem(where, found, hint)) from None


def _lies_below(item: dict[str, Any], output_uri: str) -> bool:
    own = json.loads(item["settings"]).get("output_uri", output_uri)
    return values.output_uri(own) == output_uri.rstrip("/")


def _wrong(name: str, where: str) -> Problem | None:
    try:
        values.run_id(name)
    except ValueError as error:
        return Problem(where, f"{name[:100]!r} is not a run id: it {error}")
    return None
