"""The loss curve as inline SVG. All drawing of the report is here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from markupsafe import Markup

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 34
_TICKS: Final = 7
_MOST_POINTS: Final = 1000


def loss_chart(lines: Mapping[str, Sequence[Point]], resumed_at: Sequence[int]) -> Markup | None:
    """`lines` maps a CSS class (`train`, `eval`) to (step, loss) points; None if all are empty.

    Points that are not finite are left out. `resumed_at` are steps that get a vertical mark.
    """
    finite = {name: _thinned([p for p in line if _is_finite(p)]) for name, line in lines.items()}
    points = [point for line in finite.values() for point in line]
    if not points:
        return None
    scale = _Scale(points)
    parts = [*_axes(scale)]
    parts += [_mark(scale, step) for step in resumed_at if scale.x0 <= step <= scale.x1]
    parts += [_line(scale, name, line) for name, line in finite.items() if line]
    return Markup(  # noqa: S704 - made of numbers and class names of our own
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Loss by step">'
        f"{''.join(parts)}</svg>"
    )


class _Scale:
    """From data to pixels."""

    def __init__(self, points: Sequence[Point]) -> None:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self.x0, self.x1 = _widened(min(xs), max(xs))
        self.y0, self.y1 = _widened(min(0.0, *ys), max(ys))

    def x(self, value: float) -> float:
        share = (value - self.x0) / (self.x1 - self.x0)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y0) / (self.y1 - self.y0)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _axes(scale: _Scale) -> list[str]:
    parts = []
    for value in _ticks(scale.y0, scale.y1):
        y = scale.y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for value in _ticks(scale.x0, scale.x1):
        x = scale.x(value)
        parts.append(f'<text x="{x}" y="{_HEIGHT - 12}" text-anchor="middle">{value:g}</text>')
    return parts


def _mark(scale: _Scale, step: int) -> str:
    x = scale.x(step)
    title = f"<title>resumed at step {step}</title>"
    return f'<path class="resume" d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}">{title}</path>'


def _line(scale: _Scale, name: str, line: Sequence[Point]) -> str:
    pixels = [(scale.x(x), scale.y(y)) for x, y in line]
    if len(pixels) == 1:
        return f'<circle class="{name}" cx="{pixels[0][0]}" cy="{pixels[0][1]}" r="3"/>'
    return f'<polyline class="{name}" points="{" ".join(f"{x},{y}" for x, y in pixels)}"/>'


def _thinned(line: Sequence[Point]) -> Sequence[Point]:
    """At most `_MOST_POINTS`: of each stretch the lowest and the highest, so that spikes stay."""
    if len(line) <= _MOST_POINTS:
        return line
    size = math.ceil(len(line) / (_MOST_POINTS // 2))
    kept: list[Point] = []
    for start in range(0, len(line), size):
        stretch = line[start : start + size]
        extremes = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(extremes)
    return kept


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`."""
    raw = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step)
    return [round(n * step, 10) for n in range(first, math.floor(high / step) + 1)]


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _is_finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])
