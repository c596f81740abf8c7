"""What makes two attempts the same run: a flat dict of everything that changes the mathematics.

Names are dotted (`data.0.sha256`, `lora.r`). What only *may* change the numbers (library
versions, the micro-batch of an equal batch) is compared with a warning; all else is refused. Where
the data lie is part of it: equal bytes elsewhere are accepted by name (`dataset_uri,data`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from job.errors import FingerprintMismatch
from job.ledger.difference import OLD_VALUES_OR_NEW_RUN, Difference, covers

_VERSIONS = "versions."
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
) -> list[Difference]:
    """Hold the run's fingerprint against the present one.

    `accepted` names fields (or their dotted parents) whose change is allowed, if the checkpoints
    can be loaded under it; with `data` goes `rows`. Returns the tolerated differences. Raises
    `FingerprintMismatch` with one problem for each refused one, and a remedy: a `finished`
    run has nothing left that could take a change up. Fields that only `recorded` or only `current`
    knows are differences too.
    """
    accepted = tuple(accepted)
    accepted += tuple(_FOLLOWS[name] for name in accepted if name in _FOLLOWS)
    refused: list[Difference] = []
    tolerated: list[Difference] = []
    for name in sorted(recorded.keys() | current.keys()):
        found = Difference(name, recorded.get(name), current.get(name))
        if found.before == found.after:
            continue
        free = not found.needs_acceptance or (covers(accepted, name) and found.loads)
        (tolerated if free else refused).append(found)
    if refused:
        raise FingerprintMismatch(
            [found.problem for found in refused], remedy=_remedy(refused, finished)
        )
    return tolerated


def _remedy(refused: list[Difference], finished: bool) -> str:
    if finished:
        return f"the run is finished: {OLD_VALUES_OR_NEW_RUN}"
    names = [found.name for found in refused]
    settled = {_SETTLES[name] for name in names if name in _SETTLES}
    fields = ",".join(f.name for f in refused if f.name not in settled and f.loads)
    if not fields:
        return OLD_VALUES_OR_NEW_RUN
    accept = f"or accept the change: FORGE_ALLOW_FINGERPRINT_CHANGE={fields}"
    return f"{OLD_VALUES_OR_NEW_RUN} ({accept})"
