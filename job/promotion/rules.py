"""Which of two promotions stays: the rules of `FORGE_PROMOTE`, as a pure function.

`newest`: the run that ended later.

`best`: the run with the higher lower end of the 95% interval of `exact`, the figure that
`FORGE_GATE_ON=lower_bound` judges. Over the same turns that is the higher share; where shares are
close, it may be the one whose faults are spread over more conversations. Both have to be judged by
the same held-out turns (`held_out_sha256`), as the runs of a sweep over one data set are; of two
that are not, neither is better, and the one in place stays. A promotion without a measure loses to
every one that has one. Of equals the one that ended first stays, so nothing is rolled out for no
gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.choices import Promote


def standing(wanted: Mapping[str, Any], current: Mapping[str, Any], rule: Promote) -> str:
    """Why `current` stays; empty where `wanted` takes its place. Both as in `promoted.json`."""
    newer = _ended(wanted) > _ended(current)
    if wanted["run_uri"] == current.get("run_uri"):
        # What is named there may be gone: a damaged adapter is published anew.
        return "" if newer else "names this very run"
    mine, theirs = _measured(wanted), _measured(current)
    if rule == "best" and (mine or theirs):
        return _better(mine, theirs, (_ended(wanted), str(wanted["run_id"])), current)
    return "" if newer else f"names a run that ended later, {current.get('run_id')}"


@dataclass(frozen=True)
class _Measured:
    low: float
    of: int
    held_out: str

    @property
    def judges(self) -> tuple[str, int]:
        return self.held_out, self.of


def _better(
    mine: _Measured | None,
    theirs: _Measured | None,
    order: tuple[str, str],
    current: Mapping[str, Any],
) -> str:
    if theirs is None:
        return ""
    names = f"names {current.get('run_id')}, "
    if mine is None:
        return names + "which was measured, and this run was not"
    if mine.judges != theirs.judges:
        return (
            f"{names}which was judged by other held-out turns, so neither is better "
            "(FORGE_PROMOTE=newest begins anew; so does another FORGE_OUTPUT_URI)"
        )
    if mine.low == theirs.low and order < (_ended(current), str(current.get("run_id"))):
        return ""
    figures = f"at least {theirs.low:.1%} exactly right, this run at least {mine.low:.1%}"
    return "" if mine.low > theirs.low else names + figures


def _measured(promotion: Mapping[str, Any]) -> _Measured | None:
    """None where it says too little to be compared, such as what an older release wrote."""
    exact, held_out = promotion.get("exact"), promotion.get("held_out_sha256")
    if not isinstance(exact, Mapping) or not isinstance(held_out, str):
        return None
    low, of = _finite(exact.get("low")), exact.get("of")
    return None if low is None or not isinstance(of, int) else _Measured(low, of, held_out)


def _finite(value: object) -> float | None:
    """No rule can do with NaN, which is neither less nor more, nor with what no float holds."""
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _ended(promotion: Mapping[str, Any]) -> str:
    return str(promotion.get("ended_at") or "")
