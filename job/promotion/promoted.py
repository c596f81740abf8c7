"""`promoted.json` in the output's root: the adapter that serving should use.

    {"run_id", "run_uri", "adapter_uri", "manifest_sha256", "step", "ended_at", "exact",
     "held_out_sha256", "previous"}

It is changed by compare-and-swap, after the run's own record says `succeeded`: an attempt that was
fenced never gets that far. Which of two runs stays there is `job.promotion.rules`'s to say, by what
both say of themselves and not by who comes first: of runs that can be compared the same one stays,
whether they promote at once or in turn. Each run has its say once, which its record then says: who
goes back to the one before is not overruled by a finished run that is started again. Of a run whose
adapter was deleted nothing can be served, so it stays in nobody's way.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from job.choices import Promote
from job.errors import AccessDenied, JobError, Problem
from job.ledger import RunRecord, settle_promotion
from job.promotion.gate import PASSED, gate_of
from job.promotion.rules import standing
from job.storage import (
    S3_SCHEME,
    Conflict,
    NotFound,
    Storage,
    open_storage,
    probe,
    send_if_unchanged,
)

if TYPE_CHECKING:
    from job.config import Settings  # `status` does without

_log = logging.getLogger(__name__)

PROMOTED_KEY: Final = "promoted.json"
_TRIES: Final = 100
"""Each loses to another run's promotion; so many of them in a row are no accident."""


def wants_promotion(record: RunRecord, rule: Promote) -> bool:
    """Not so by the rule `never`, nor where no gate was set or passed."""
    return rule != "never" and record.results.get("gate") == PASSED and record.adapter is not None


def promote(root: Storage, run_uri: str, record: RunRecord, rule: Promote = "newest") -> bool:
    """Name the run's adapter in `root`, the output that runs share. False where there is nothing
    to promote: the rule is `never`, no gate was set, or what is named there stays by the rule, as
    long as its adapter exists.

    Raises `JobError` if other runs keep winning, and what storage raises.
    """
    if not wants_promotion(record, rule):
        return False
    wanted = _promotion(run_uri, record)
    conditional: bool | None = None
    for _ in range(_TRIES):
        current, etag = _current(root)
        gone = False
        if current is not None and (stays := standing(wanted, current, rule)):
            gone = current.get("run_uri") != run_uri and _is_gone(root, current)
            if not gone:
                if current.get("run_uri") != run_uri:
                    _log.info("not promoted: %s/%s %s", root.uri, PROMOTED_KEY, stays)
                return False
        if conditional is None:  # not asked where there is nothing to write
            conditional = probe(root)
        data = _serialized(wanted, current, gone=gone)
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


def check_promotion(settings: Settings) -> None:
    """Raises at a run's start what `promote` would at its end, if its rights are those of one run
    alone: the output's root is where promotions stand."""
    if gate_of(settings).is_set and settings.promote != "never":
        root = open_storage(settings.output_uri)
        read_promoted(root)
        probe(root)


def promote_once(root: Storage, run: Storage, record: RunRecord, etag: str, rule: Promote) -> None:
    """`promote` for a finished run, if the attempt that finished it was killed before it had.

    `record` and `etag` are as read from `run`. Raises as `promote` does.
    """
    if record.promotion_settled or not wants_promotion(record, rule):
        return
    promote(root, run.uri, record, rule)
    settle_promotion(run, record, etag)


def read_promoted(root: Storage) -> dict[str, Any] | None:
    """What is promoted in an output now; None where nothing is. Raises what storage raises."""
    return _current(root)[0]


def promoted_beside(run_uri: str) -> dict[str, Any] | None:
    """The same, of the output that a run lies in. Raises what storage raises, and `AccessDenied`
    is no surprise: whoever may read a run need not have rights above it."""
    output = run_uri.rstrip("/").rpartition("/")[0]
    if output == S3_SCHEME.removesuffix("/"):  # a copy that is all of its bucket
        return None
    return read_promoted(open_storage(output or "/"))


def is_named(promoted: Mapping[str, Any] | None, run_id: str) -> bool:
    """Whether the run is the one that `promoted.json`, read from its own output, names."""
    return promoted is not None and promoted.get("run_id") == run_id


def _promotion(run_uri: str, record: RunRecord) -> dict[str, Any]:
    assert record.adapter is not None
    evaluation = record.results.get("evaluation") or {}
    return {
        "run_id": record.run_id,
        "run_uri": run_uri,
        "adapter_uri": f"{run_uri}/{record.adapter.key}",
        "manifest_sha256": record.adapter.manifest_sha256,
        "step": record.adapter.step,
        "ended_at": record.current.ended_at or "",
        "exact": (evaluation.get("adapter") or {}).get("exact"),
        "held_out_sha256": evaluation.get("held_out_sha256"),
    }


def _is_gone(root: Storage, promotion: Mapping[str, Any]) -> bool:
    """Whether the adapter that is named there was deleted, so that it can't be served. Of one that
    lies elsewhere, or that we may not look at, this can't be told: it is left in its place."""
    from job.checkpoint.manifest import MANIFEST_NAME  # not on the way to `status`

    named, below = str(promotion.get("adapter_uri")), root.uri.rstrip("/") + "/"
    if not named.startswith(below):
        return False
    try:
        root.stat(f"{named.removeprefix(below).rstrip('/')}/{MANIFEST_NAME}")
    except NotFound:
        where, run_id = f"{root.uri}/{PROMOTED_KEY}", promotion.get("run_id")
        _log.warning("%s names %s, whose adapter is gone: it counts as nothing", where, run_id)
        return True
    except (AccessDenied, ValueError) as error:  # ValueError: it names no object
        _log.info("whether the adapter of %s is there can't be told: %s", named, error)
    return False


def _current(root: Storage) -> tuple[dict[str, Any] | None, str | None]:
    """What is promoted now. Something that is not ours is as good as nothing, and is replaced."""
    try:
        data, etag = root.read(PROMOTED_KEY)
    except NotFound:
        return None, None
    try:
        found = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        _log.warning("%s/%s is not ours and counts as nothing", root.uri, PROMOTED_KEY)
        return None, etag
    return found, etag


def _finite(text: str) -> float | None:
    """What is NaN or infinite would be no JSON to others, once it is written as `previous`."""
    found = float(text)
    return found if math.isfinite(found) else None


def _serialized(wanted: dict[str, Any], before: dict[str, Any] | None, *, gone: bool) -> bytes:
    """With all that the one before said of itself: put back, it counts as it did."""
    previous = {name: before[name] for name in wanted if name in before} if before else None
    # One whose adapter was published anew, or is gone, is none that can be gone back to.
    if before and (gone or before.get("run_uri") == wanted["run_uri"]):
        previous = before.get("previous")
    return (json.dumps({**wanted, "previous": previous}, indent=2) + "\n").encode()
