"""Which attempt held the pod when, on a UTC axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from job.plots.canvas import Canvas, drawn

_MOST_BARS: Final = 40
_BAR: Final = 20
"""Pixels for each attempt."""


@dataclass(frozen=True)
class Bar:
    """One attempt."""

    number: int
    start: datetime
    seconds: float
    color: str
    told: str
    """What is said of it where the pointer rests."""
    wasted_seconds: float = 0.0
    """Of its end: steps that were not durable when it ended."""
    open_end: bool = False
    """It was killed; nobody knows exactly when."""
    checkpoints: tuple[datetime, ...] = ()


def attempts_svg(bars: Sequence[Bar], width: int) -> bytes | None:
    """The last attempts, the oldest on top; None for no attempt."""
    shown = bars[-_MOST_BARS:]
    if not shown:
        return None

    def draw(canvas: Canvas) -> None:
        import matplotlib.dates

        axes: Any = canvas.axes
        dates: Any = matplotlib.dates  # without types
        for row, bar in enumerate(shown):
            _attempt(canvas, axes, row, bar)
        locator = dates.AutoDateLocator(tz=UTC, minticks=3, maxticks=5 if width < 500 else 9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
        axes.set_yticks(range(len(shown)), [f"#{bar.number}" for bar in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("UTC")

    label = f"When each of {len(shown)} attempts held its pod"
    return drawn(draw, size=(width, 56 + _BAR * max(2, len(shown))), label=label)


def _attempt(canvas: Canvas, axes: Any, row: int, bar: Bar) -> None:
    length = timedelta(seconds=max(bar.seconds, 1.0))
    box = axes.barh(row, length, left=bar.start, height=0.62, color=canvas.color(bar.color))[0]
    box.set_alpha(0.75)
    canvas.tip(box, bar.told)
    if bar.wasted_seconds > 0:
        wasted = timedelta(seconds=min(bar.wasted_seconds, length.total_seconds()))
        start = bar.start + length - wasted
        lost = axes.barh(row, wasted, left=start, height=0.62, color=canvas.color("bad"))[0]
        canvas.tip(lost, f"about {wasted.total_seconds():.0f} s of steps that were not durable")
    if bar.open_end:
        axes.plot([bar.start + length], [row], ">", color=canvas.color("bad"), ms=7)
    for moment in bar.checkpoints:
        (mark,) = axes.plot([moment], [row], "D", color=canvas.color("ink"), ms=5)
        canvas.tip(mark, f"checkpoint durable at {moment:%Y-%m-%d %H:%M:%S} UTC")
