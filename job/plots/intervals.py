"""Rates with their intervals, base beside adapter: a dot and a whisker each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from job.plots.canvas import Canvas, drawn

_ROW: Final = 44
"""Pixels for each measure."""


@dataclass(frozen=True)
class Interval:
    """A rate from 0 to 1 and its interval."""

    rate: float
    low: float
    high: float


def intervals_svg(
    rows: Sequence[tuple[str, Mapping[str, Interval | None]]], size: int
) -> bytes | None:
    """`rows` are (label of our own, `base` and `adapter`); None without any rate."""
    shown = [(label, sides) for label, sides in rows if any(sides.values())]
    if not shown:
        return None

    def draw(canvas: Canvas) -> None:
        axes: Any = canvas.axes
        for row, (label, sides) in enumerate(shown):
            for name, color, offset in (("base", "quiet", -0.14), ("adapter", "train", 0.14)):
                if found := sides.get(name):
                    _whisker(canvas, row + offset, f"{label}, {name}", color, found)
        for name, color in (("base", "quiet"), ("adapter", "train")):
            axes.plot([], [], "o-", color=canvas.color(color), ms=7, label=name)
        axes.set_yticks(range(len(shown)), [label for label, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        canvas.figure.legend(loc="outside upper left", ncols=2)

    label = "Base and adapter with 95% intervals; the table has the numbers"
    return drawn(draw, size=(size, 60 + _ROW * len(shown)), label=label)


def _whisker(canvas: Canvas, y: float, name: str, color: str, found: Interval) -> None:
    axes, paint = canvas.axes, canvas.color(color)
    axes.plot([found.low, found.high], [y, y], "-", color=paint, lw=2.5, clip_on=False)
    (dot,) = axes.plot([found.rate], [y], "o", color=paint, ms=8, clip_on=False)
    canvas.tip(dot, f"{name}: {found.rate:.1%} ({found.low:.1%} to {found.high:.1%})")
