"""`report.html`: one page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from job.ledger import flatten
from job.report.chart import Point, loss_chart

_MEASURES: Final = {
    "well_formed": "well-formed",
    "valid_arguments": "valid arguments",
    "right_tool": "right tool",
    "exact": "exactly right",
    "refusal": "right refusal",
}
_VERDICTS: Final = {
    "succeeded": ("good", "Succeeded: the adapter is published."),
    "gate_failed": ("bad", "Gate failed: the candidate is kept, nothing was promoted."),
    "failed": ("bad", "Failed."),
    "preempted": ("open", "Preempted: the next attempt goes on from the last checkpoint."),
    "running": ("open", "Running."),
}
_MOST_ROWS: Final = 200
"""Of a table; `report.json` has all of them."""
_MOST_EXAMPLES: Final = 20


def render(document: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """The page of a `report.json` document and the trainer's log."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": _duration, "percent": _percent, "moment": _moment}
    source = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        run=document,
        verdict=_VERDICTS[document["status"]],
        chart=loss_chart(
            {"train": _line(history, "loss"), "eval": _line(history, "eval_loss")},
            [attempt["from_step"] for attempt in document["attempts"] if attempt["from_step"]],
        ),
        measures=_measures(document["evaluation"]),
        tools=list(((document["evaluation"] or {}).get("tools") or {}).items()),
        examples=((document["evaluation"] or {}).get("examples") or [])[:_MOST_EXAMPLES],
        tables={
            "Data": flatten(document["data"]),
            "Settings": flatten(document["settings"]),
            "Fingerprint": flatten(document["fingerprint"]),
        },
        most_rows=_MOST_ROWS,
    )


def _line(history: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    return [(float(e.get("step", 0)), float(e[name])) for e in history if name in e]


def _measures(evaluation: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """(label, result of the base, result of the adapter), those that either has."""
    base = (evaluation or {}).get("base") or {}
    adapter = (evaluation or {}).get("adapter") or {}
    names = [*_MEASURES, *sorted((base.keys() | adapter.keys()) - _MEASURES.keys())]
    return [
        (_MEASURES.get(name, name), base.get(name), adapter.get(name))
        for name in names
        if name in base or name in adapter
    ]


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _moment(time: str | None) -> str:
    """An ISO 8601 time in UTC, to the second."""
    return time[:19].replace("T", " ") if time else "–"
