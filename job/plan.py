"""`forge-job plan RUNS`: many runs from one text, each checked before any GPU is asked for.

RUNS is JSON, either a list of objects with settings, each with a `name` if it should have one,

    [{"name": "weather", "dataset_uri": "s3://bucket/weather/"}, {"lora_r": 32}]

or an object of lists, all combinations of which are meant: `{"lora_r": [8, 16], "seed": [1, 2]}`.
A run's id is `FORGE_RUN_ID` and its name, or a hash of its settings: the same text is the same
runs, so a plan that is made again resumes them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from job.config import (
    PREFIX,
    SETTINGS_VARIABLE,
    WITH_CREDENTIALS,
    Settings,
    load_settings,
    settings_in,
)
from job.errors import Problem, SettingsError
from job.promotion.gate import gate_of

MOST_RUNS: Final = 1000
"""What a workflow's object can hold, and more than one means to start by a typing error."""
_WHERE: Final = "the runs"
_NO_HASH: Final = "0" * 8
_EXAMPLE: Final = """write [{"lora_r": 8}, {"lora_r": 16}] or {"lora_r": [8, 16]}"""


@dataclass(frozen=True)
class Planned:
    """A run that is to be started."""

    run_id: str
    settings: Mapping[str, str]
    """What it has of its own and what all have, as the variables would hold it."""
    own: tuple[str, ...]
    """Names of the settings that were given for it alone."""
    output_uri: str
    """It lies in `<output_uri>/<run_id>`."""
    never_promoted: bool = False
    """It is to be promoted, and without a gate to pass it can't be."""

    def as_item(self) -> dict[str, str]:
        """For a template: the id, the value of `FORGE_SETTINGS`, and where the run lies."""
        settings = json.dumps(self.settings, sort_keys=True)
        return {"run-id": self.run_id, "settings": settings, "output-uri": self.output_uri}


def plan(text: str, promote: str | None = None) -> list[Planned]:
    """The runs that `text` means, with the environment's settings below; `promote` is the rule of
    those that don't name one, whatever `FORGE_PROMOTE` is: that is what a pod has for any run.

    Raises `SettingsError` with the problems of all of them.
    """
    common = settings_in(os.environ.get(SETTINGS_VARIABLE) or "{}", SETTINGS_VARIABLE)
    if promote is not None:
        common = {"promote": promote} | common
    problems, planned = list(_unnamed()), list[Planned]()
    for number, entry in enumerate(_entries(text), start=1):
        try:
            planned.append(_planned(number, entry, common))
        except SettingsError as error:
            problems += error.problems
    for run_id, times in Counter(run.run_id for run in planned).items():
        if times > 1:
            problems.append(Problem(_WHERE, f"{run_id} is there {times} times", "leave one"))
    if problems:
        raise SettingsError(problems)
    return planned


def columns(runs: Sequence[Planned]) -> str:
    """What tells these runs apart, for `status --all --columns`: of what a record holds."""
    return ",".join(sorted({name for run in runs for name in run.own} - WITH_CREDENTIALS))


def ids(runs: Sequence[Planned]) -> str:
    """One a line, for `status --all` below the output that the runs share. Those with another
    output of their own are no part of its table."""
    output = _shared_output()
    return "".join(
        f"{run.run_id}\n" for run in runs if run.output_uri == (output or run.output_uri)
    )


def _shared_output() -> str:
    return os.environ.get(PREFIX + "OUTPUT_URI", "").removeprefix("file://").rstrip("/")


def write(runs: Sequence[Planned], folder: Path) -> None:
    """Files for a workflow's next steps: `runs.json`, `columns` and `ids`.

    Raises `SettingsError` where they can't be written, and where `ids` would be empty: the summary
    that the workflow ends with would hold none of its runs.
    """
    if not ids(runs):
        found = f"{_shared_output()}: the summary is of the runs that lie there, and none does"
        hint = "give here the output that they share, and not as output_uri of the runs"
        raise SettingsError(Problem(PREFIX + "OUTPUT_URI", found, hint))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "runs.json").write_text(json.dumps([run.as_item() for run in runs]))
        (folder / "columns").write_text(columns(runs))
        (folder / "ids").write_text(ids(runs))
    except OSError as error:
        raise SettingsError(Problem("--into", f"{folder}: {error.strerror}")) from error


def _unnamed() -> Iterator[Problem]:
    """Told once, not of each run."""
    if not os.environ.get(PREFIX + "RUN_ID"):
        hint = "a run's id is it, '-', and the run's name or a hash of its settings"
        yield Problem(PREFIX + "RUN_ID", "is required and not set", hint)


def _entries(text: str) -> Iterable[dict[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise SettingsError(Problem(_WHERE, f"are not JSON: {error}", _EXAMPLE)) from None
    if isinstance(found, dict):
        _refuse_single_values(found)
    elif not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise SettingsError(Problem(_WHERE, "are neither objects nor lists of values", _EXAMPLE))
    # Counted first: the combinations of a mistyped grid fill the memory.
    many = math.prod(map(len, found.values())) if isinstance(found, dict) else len(found)
    if not 1 <= many <= MOST_RUNS:
        told = f"are {many:,}; there may be 1 to {MOST_RUNS}"
        raise SettingsError(Problem(_WHERE, told, _EXAMPLE))
    return _combinations(found) if isinstance(found, dict) else found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of two equal names without a word: a grid would lose its first list."""
    for name, times in Counter(name for name, _ in pairs).items():
        if times > 1:
            raise SettingsError(Problem(_WHERE, f"{name} is there {times} times", "leave one"))
    return dict(pairs)


def _refuse_single_values(lists: Mapping[str, Any]) -> None:
    wrong = [name for name, values in lists.items() if not isinstance(values, list)]
    if wrong:
        found = f"{', '.join(wrong)}: of an object each value is a list"
        raise SettingsError(Problem(_WHERE, found, _EXAMPLE))


def _combinations(lists: Mapping[str, list[Any]]) -> Iterable[dict[str, Any]]:
    return (dict(zip(lists, values, strict=True)) for values in product(*lists.values()))


def _planned(number: int, entry: Mapping[str, Any], common: Mapping[str, str]) -> Planned:
    where = f"run {number}"
    name = entry.get("name")
    own = settings_in(json.dumps({k: v for k, v in entry.items() if k != "name"}), where)
    if name is not None and not isinstance(name, str):
        raise SettingsError(Problem(where, "its name is no text"))
    prefix = os.environ.get(PREFIX + "RUN_ID") or "run"  # its lack is told already
    given = {**common, **own}
    try:
        # Checked with an id of the same form: its hash is of what the settings mean.
        settings = load_settings(**given | {"run_id": f"{prefix}-{name or _NO_HASH}"})
    except SettingsError as error:
        problems = [Problem(f"{where}, {p.where}", p.found, p.hint) for p in error.problems]
        raise SettingsError(problems) from None
    run_id = f"{prefix}-{name or _hash(own, settings)}"
    ungated = settings.promote != "never" and not gate_of(settings).is_set
    return Planned(run_id, given, tuple(own), settings.output_uri, never_promoted=ungated)


def _hash(own: Iterable[str], settings: Settings) -> str:
    """Of the run's own settings in one spelling: `8.0` and ` 1e-4` are no other run than `8` and
    `0.0001`."""
    meant = {name: _spelled(getattr(settings, name)) for name in own}
    return hashlib.sha256(json.dumps(meant, sort_keys=True).encode()).hexdigest()[:8]


def _spelled(value: object) -> str:
    """As JSON has a number or a truth value, and a variable all else."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
