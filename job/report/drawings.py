"""The drawings of a page, each for a wide and for a narrow place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from markupsafe import Markup

from job.plots import Bar, Interval, attempts_svg, curve_svg, intervals_svg, loss_svg

_log = logging.getLogger(__name__)

_SMALL: Final = (400, 220)
_ENDS: Final = {0: "good", 75: "open", 76: "open", 80: "open"}

Drawing = tuple[Markup, Markup]
"""For a wide place and for a narrow one."""
History = Sequence[Mapping[str, Any]]


def loss(history: History, resumed_at: Sequence[int]) -> Drawing | None:
    """Training and validation loss."""
    return _both(
        lambda: loss_svg(history, resumed_at, (900, 330)),
        lambda: loss_svg(history, resumed_at, (380, 320)),
    )


def small_curves(history: History, resumed_at: Sequence[int]) -> list[tuple[str, Drawing]]:
    """(title, drawing) of what else the log has."""
    drawings = [
        ("Learning rate", _curve(history, {"learning_rate": "train"}, resumed_at)),
        ("Gradient norm", _curve(history, {"grad_norm": "train"}, resumed_at, raw=False)),
        (
            "Supervised tokens per second",
            _curve(_paces(history), {"pace": "train"}, resumed_at, raw=False),
        ),
        (
            "Held-out tool calls during training",
            _curve(
                history,
                {"eval_exact": "train", "eval_well_formed": "eval"},
                resumed_at,
                share=True,
            ),
        ),
    ]
    return [(title, found) for title, found in drawings if found]


def attempts(document: Mapping[str, Any], step_seconds: float | None) -> Drawing | None:
    """The time line."""
    bars = [_bar(document, place, step_seconds) for place in range(len(document["attempts"]))]
    return _both(lambda: attempts_svg(bars, 900), lambda: attempts_svg(bars, 380))


def measures(rows: Sequence[tuple[str, Any, Any]]) -> Drawing | None:
    """Base beside adapter."""
    shown = [
        (name[:30], {"base": _interval(base), "adapter": _interval(adapter)})
        for name, base, adapter in rows
        if name.isascii() and name.isprintable()
    ]
    return _both(lambda: intervals_svg(shown, 760), lambda: intervals_svg(shown, 380))


def _curve(
    history: History, values: Mapping[str, str], resumed_at: Sequence[int], **how: Any
) -> Drawing | None:
    label = " and ".join(values).replace("_", " ").replace("pace", "supervised tokens per second")
    drawing = _inline(lambda: curve_svg(history, values, label, resumed_at, _SMALL, **how))
    return (drawing, drawing) if drawing else None


def _paces(history: History) -> list[dict[str, Any]]:
    return [
        {"step": entry.get("step"), "pace": entry["supervised_tokens"] / entry["step_seconds"]}
        for entry in history
        if entry.get("step_seconds") and entry.get("supervised_tokens") is not None
    ]


def _bar(document: Mapping[str, Any], place: int, step_seconds: float | None) -> Bar:
    attempt = document["attempts"][place]
    later = document["attempts"][place + 1 :][:1]
    lost = later[0]["lost_steps"] if later else 0
    number, code = attempt["number"], attempt["exit_code"]
    ended = "no exit code" if code is None else f"exit code {code}"
    steps = f"steps {attempt['from_step']} to {attempt['to_step']}"
    last = place == len(document["attempts"]) - 1
    return Bar(
        number=number,
        start=datetime.fromisoformat(attempt["started_at"]),
        seconds=attempt["seconds"],
        color=_ENDS.get(code, "bad") if code is not None else "quiet",
        told=f"attempt {number}: {steps}, {timedelta(seconds=round(attempt['seconds']))}, {ended}",
        wasted_seconds=lost * (step_seconds or 0.0),
        open_end=attempt["seconds_at_least"] and not last,
        checkpoints=tuple(
            datetime.fromisoformat(checkpoint["committed_at"])
            for checkpoint in document["checkpoints"]
            if checkpoint["attempt"] == number
        ),
    )


def _interval(result: Mapping[str, Any] | None) -> Interval | None:
    rate = (result or {}).get("rate")
    if result is None or rate is None:
        return None
    return Interval(rate, result.get("low", rate), result.get("high", rate))


def _both(wide: Callable[[], bytes | None], narrow: Callable[[], bytes | None]) -> Drawing | None:
    drawings = _inline(wide), _inline(narrow)
    return (drawings[0], drawings[1]) if drawings[0] and drawings[1] else None


def _inline(draw: Callable[[], bytes | None]) -> Markup | None:
    try:
        svg = draw()
    except Exception:  # noqa: BLE001 - a run of a day must not fail for a drawing
        _log.exception("a drawing of the report could not be made, and is left out")
        return None
    return None if svg is None else Markup(svg.decode())  # noqa: S704 - of our own, and escaped
