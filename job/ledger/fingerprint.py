"""What makes two attempts the same run: a flat dict of everything that changes the mathematics.

Names are dotted (`data.0.sha256`, `lora.r`). What only *may* change the numbers (library
versions, the micro-batch of an equal batch) is compared with a warning; all else is refused. Where
the data lie is part of it: equal bytes elsewhere are accepted by name (`dataset_uri,data`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from job.errors import FingerprintMismatch, Problem

_VERSIONS = "versions."
_MAY_DIFFER = (_VERSIONS, "provenance.")
_FOLLOWS = {"data": "rows"}
"""Whoever accepts the one accepts the other: other data have other numbers of rows."""
_SETTLES = {"world_size": "effective_batch_size"}
"""Whoever accepts the one gets the other back: the accumulation follows the number of ranks."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists to dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat |= flatten({str(i): item for i, item in enumerate(value)}, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def versions(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """Library → the version that the run has; nothing of those that weren't there."""
    return {
        name.removeprefix(_VERSIONS): found
        for name, found in fingerprint.items()
        if name.startswith(_VERSIONS) and found is not None
    }


def compare(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    accepted: Iterable[str] = (),
    *,
    finished: bool = False,
) -> list[str]:
    """Hold the run's fingerprint against the present one.

    `accepted` names fields (or their dotted parents) whose change is allowed; with `data` goes
    `rows`. Returns a line for each tolerated difference. Raises `FingerprintMismatch` with one
    problem for each refused one, and how to mend it: a `finished` run has nothing left that could
    take a change up. Fields that only `recorded` or only `current` knows are differences too.
    """
    accepted = tuple(accepted)
    accepted += tuple(_FOLLOWS[name] for name in accepted if name in _FOLLOWS)
    refused: list[Problem] = []
    tolerated: list[str] = []
    for name in sorted(recorded.keys() | current.keys()):
        before, after = recorded.get(name), current.get(name)
        if before == after:
            continue
        if name.startswith(_MAY_DIFFER) or _covers(accepted, name):
            tolerated.append(f"{name}: was {before!r}, is now {after!r}")
        else:
            refused.append(Problem(name, f"was {before!r}, is now {after!r}"))
    if refused:
        refused.append(_remedy([problem.where for problem in refused], finished))
        raise FingerprintMismatch(refused)
    return tolerated


def _remedy(refused: list[str], finished: bool) -> Problem:
    way = "use the old values, or another FORGE_RUN_ID for a new run"
    if finished:
        return Problem("to mend it", f"the run is finished: {way}")
    settled = {_SETTLES[name] for name in refused if name in _SETTLES}
    fields = ",".join(name for name in refused if name not in settled)
    accept = f"or accept the change: FORGE_ALLOW_FINGERPRINT_CHANGE={fields}"
    return Problem("to mend it", way, accept)


def _covers(accepted: Iterable[str], name: str) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in accepted)
