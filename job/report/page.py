"""`report.html`: one page that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from job.dataset.review.visible import visible
from job.dataset.rows.secrets import mask_secrets
from job.evaluation.measures import LABELS
from job.ledger import flatten, versions
from job.pages import environment
from job.plots import FEWEST_SMOOTHED, smoothing_weight
from job.report import drawings
from job.report.examples import view

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


def render(
    document: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]] = (),
    resumed_at: Sequence[int] = (),
) -> str:
    """The page of a `report.json` document and the trainer's log. `samples` are conversations as
    `conversation.html.jinja` takes them, `resumed_at` steps that the curves mark."""
    templates = environment(__package__ or "")
    templates.filters |= {
        "duration": _duration,
        "percent": _percent,
        "moment": _moment,
        "shown": lambda value: visible(mask_secrets(str(value))),
    }
    evaluation = document["evaluation"] or {}
    logged = sum("loss" in entry for entry in history)
    measures = _measures(evaluation)
    return templates.get_template("report.html.jinja").render(
        run=document,
        verdict=_VERDICTS[document["status"]],
        end=_end(document),
        loss=drawings.loss(history, resumed_at),
        smoothing=smoothing_weight(logged) if logged >= FEWEST_SMOOTHED else None,
        curves=drawings.small_curves(history, resumed_at),
        timeline=drawings.attempts(document, document["training"]["step_seconds"]),
        measures=measures,
        measured=drawings.measures(measures),
        gains=[(LABELS.get(k, k), v) for k, v in (evaluation.get("gain") or {}).items() if v],
        parts=[
            (title, column, list((evaluation.get(name) or {}).items()))
            for title, column, name in (
                ("Exactly right, by tool", "tool", "tools"),
                ("Exactly right, by scenario", "scenario", "scenarios"),
            )
        ],
        examples=[view(each) for each in (evaluation.get("examples") or [])[:_MOST_EXAMPLES]],
        samples=samples,
        tables={
            "Data": flatten(document["data"]),
            "Settings": flatten(document["settings"]),
            "Environment": flatten(
                {"model": document["model"], "versions": versions(document["fingerprint"])}
            ),
            "Fingerprint": flatten(document["fingerprint"]),
        },
        most_rows=_MOST_ROWS,
    )


def _end(document: Mapping[str, Any]) -> str:
    """Why the last attempt ended as it did, unless it ended well."""
    if document["status"] not in ("failed", "preempted") or not document["attempts"]:
        return ""
    last = document["attempts"][-1]
    return f"Exit code {last['exit_code']}: {last['reason']}" if last["reason"] else ""


def _measures(evaluation: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    """(label, result of the base, result of the adapter), those that either has."""
    base = (evaluation or {}).get("base") or {}
    adapter = (evaluation or {}).get("adapter") or {}
    names = [*LABELS, *sorted((base.keys() | adapter.keys()) - LABELS.keys())]
    return [
        (LABELS.get(name, name), base.get(name), adapter.get(name))
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
