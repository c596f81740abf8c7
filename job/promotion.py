"""`promoted.json` in the output's root: the adapter that passed its gate last, for serving to find.

    {"run_id", "run_uri", "adapter_uri", "manifest_sha256", "step", "ended_at", "exact", "previous"}

It is changed by compare-and-swap, after the run's own record says `succeeded`: an attempt that was
fenced never gets that far. A run that ended earlier never replaces one that ended later, so runs
that promote at once, and finished runs that are started again, leave the newest in place.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any, Final

from job.errors import JobError, Problem
from job.gate import PASSED
from job.ledger import RunRecord
from job.storage import Conflict, NotFound, Storage, probe, send_if_unchanged

_log = logging.getLogger(__name__)

PROMOTED_KEY: Final = "promoted.json"
_TRIES: Final = 10
"""Each loses to another run's promotion; so many of them at once are no accident."""
_KEPT: Final = ("run_id", "adapter_uri", "ended_at")
"""What is said of the one before, to go back to it."""


def promote(root: Storage, run_uri: str, record: RunRecord) -> bool:
    """Name the run's adapter in `root`, the output that runs share. False where there is nothing
    to promote: no gate was set, or the run that is named there ended later, or is this one.

    Raises `JobError` if other runs keep winning, and what storage raises.
    """
    if record.results.get("gate") != PASSED or record.adapter is None:
        return False
    wanted = _promotion(run_uri, record)
    conditional: bool | None = None
    for _ in range(_TRIES):
        current, etag = _current(root)
        if current is not None and str(current.get("ended_at", "")) >= wanted["ended_at"]:
            return False
        if conditional is None:  # not asked where there is nothing to write
            conditional = probe(root)
        data = _serialized(wanted, current)
        try:
            send_if_unchanged(
                partial(root.write, PROMOTED_KEY, data), etag, conditional=conditional
            )
        except Conflict:
            continue
        _log.info("promoted: %s/%s names %s", root.uri, PROMOTED_KEY, wanted["adapter_uri"])
        return True
    found = f"was changed by other runs {_TRIES} times in a row"
    raise JobError(Problem(f"{root.uri}/{PROMOTED_KEY}", found, "start the run again"))


def _promotion(run_uri: str, record: RunRecord) -> dict[str, Any]:
    assert record.adapter is not None
    exact = ((record.results.get("evaluation") or {}).get("adapter") or {}).get("exact")
    return {
        "run_id": record.run_id,
        "run_uri": run_uri,
        "adapter_uri": f"{run_uri}/{record.adapter.key}",
        "manifest_sha256": record.adapter.manifest_sha256,
        "step": record.adapter.step,
        "ended_at": record.current.ended_at or "",
        "exact": exact,
    }


def _current(root: Storage) -> tuple[dict[str, Any] | None, str | None]:
    """What is promoted now. Something that is not ours is as good as nothing, and is replaced."""
    try:
        data, etag = root.read(PROMOTED_KEY)
    except NotFound:
        return None, None
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        _log.warning("%s/%s is not ours and is replaced", root.uri, PROMOTED_KEY)
        return None, etag
    return found, etag


def _serialized(wanted: dict[str, Any], before: dict[str, Any] | None) -> bytes:
    previous = {name: before.get(name) for name in _KEPT} if before else None
    return (json.dumps({**wanted, "previous": previous}, indent=2) + "\n").encode()
