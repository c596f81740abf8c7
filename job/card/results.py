"""The card's results: base against adapter, with what the intervals allow to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from job.card.facts import CardFacts
from job.card.markdown import plain, table
from job.evaluation.measures import LABELS

_ROWS: Final = 20
"""Tools or scenarios that are listed; the report has all."""


def results(facts: CardFacts) -> list[str]:
    evaluation = facts.evaluation
    if not evaluation:
        return ["## Results", "", "No held-out tool calls were evaluated.", "", *_gate(facts.gate)]
    return [
        "## Results",
        "",
        *_judged(evaluation),
        *_left_out(evaluation.get("not_judged")),
        *table(("", "base", "adapter"), _measures(evaluation)),
        *_gain(evaluation),
        *_gate(facts.gate),
        *_groups("tool", evaluation.get("tools")),
        *_groups("scenario", evaluation.get("scenarios")),
    ]


def _judged(evaluation: Mapping[str, Any]) -> list[str]:
    """On how many turns the figures rest, and what kept the others out."""
    rows, turns = evaluation["rows"], evaluation.get("turns", evaluation["rows"])
    by_time = evaluation.get("stopped_by") == "seconds"
    if not rows:
        why = ": time was over before the first answer" if by_time else ""
        return [f"Nothing was judged, of {turns} held-out assistant turns{why}.", ""]
    of = f" of {turns}" if rows < turns else ""
    cut = " (`FORGE_EVAL_MAX_SECONDS` was over: the others were not judged)" if by_time else ""
    return [f"On {rows}{of} held-out assistant turns{cut}, greedy decoding, 95% intervals:", ""]


def _left_out(not_judged: Mapping[str, Any] | None) -> list[str]:
    if not not_judged:
        return []
    return [f"Not judged: {not_judged['turns']} turns; {plain(not_judged['why'])}.", ""]


def _measures(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for measure, label in LABELS.items():
        base, adapter = evaluation["base"].get(measure), evaluation["adapter"].get(measure)
        if base and adapter:
            yield label, _interval(base), _interval(adapter)


def _gain(evaluation: Mapping[str, Any]) -> list[str]:
    gain = (evaluation.get("gain") or {}).get("exact")
    if not gain:
        return []
    low, high = gain["low"], gain["high"]
    said = f"{gain['rate']:+.1%} ({low:+.1%} to {high:+.1%})"
    doubt = "" if low > 0 or high < 0 else "; the interval holds zero: it may be chance"
    return [f"Gain in exactly right calls over the base: {said}{doubt}.", ""]


def _gate(verdict: str) -> list[str]:
    return [f"Promotion gate: {plain(verdict)}.", ""]


def _groups(what: str, groups: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """Of groups that count (`of`, `base`, `adapter`: turns exactly right)."""
    counted = [
        (name, found["base"], found["adapter"], found["of"])
        for name, found in (groups or {}).items()
        if {"base", "adapter", "of"} <= found.keys()
    ]
    if not counted:
        return []
    more = len(counted) - _ROWS
    rest = [f"… and {more} more in the run's report.", ""] if more > 0 else []
    shown = counted[:_ROWS]
    columns = (what, "base right", "adapter right", "turns")
    return [f"### By {what}", "", *table(columns, shown), *rest]


def _interval(result: Mapping[str, float]) -> str:
    return f"{result['rate']:.1%} ({result['low']:.1%} to {result['high']:.1%})"
