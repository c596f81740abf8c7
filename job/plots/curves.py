"""Curves of training by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from job.plots.canvas import Canvas, drawn
from job.plots.series import (
    FEWEST_SMOOTHED,
    Numbers,
    not_finite,
    points,
    scientific,
    smoothed,
    thinned,
)

_MOST_TIPS: Final = 100
"""Points that tell their value where the pointer rests."""
_MOST_MARKS: Final = 60
_SMALL: Final = 0.01
"""A curve that stays below has its values told as 2e-4, not as 0.0002."""

History = Sequence[Mapping[str, Any]]


def loss_svg(
    history: History,
    resumed_at: Sequence[int],
    size: tuple[int, int],
    *,
    standalone: bool = False,
) -> bytes | None:
    """Training loss, raw and smoothed, and validation loss with its best; None without any.

    `history` is the trainer's log; `resumed_at` are steps that get a vertical mark.
    """
    train, validation = points(history, "loss"), points(history, "eval_loss")
    if not len(train[0]) and not len(validation[0]):
        return None

    def draw(canvas: Canvas) -> None:
        _training(canvas, *train, columns=size[0])
        _validation(canvas, *validation, columns=size[0])
        _resumes(canvas, resumed_at, _extent(train[0], validation[0]))
        _not_finite(canvas, history)
        _step_axis(canvas)
        canvas.figure.legend(loc="outside upper left", ncols=5 if size[0] > 500 else 2)

    return drawn(draw, size=size, label=_in_words(train, validation), standalone=standalone)


def loss_curve_svg(history: History, resumed_at: Sequence[int]) -> bytes | None:
    """The same as a file of its own, for a model card: readable on white and on black."""
    return loss_svg(history, resumed_at, (720, 320), standalone=True)


def curve_svg(
    history: History,
    values: Mapping[str, str],
    label: str,
    resumed_at: Sequence[int],
    size: tuple[int, int],
    *,
    share: bool = False,
    raw: bool = True,
) -> bytes | None:
    """One or more values of the log by step; None without any.

    `values` is key of the log → colour. `raw`: as it was logged, else smoothed over it as well.
    `share`: values from 0 to 1, drawn as percentages.
    """
    lines = {name: points(history, name) for name in values}
    if not any(len(steps) for steps, _ in lines.values()):
        return None

    def draw(canvas: Canvas) -> None:
        for name, color in values.items():
            steps, found = lines[name]
            if not len(steps):
                continue
            told = name.removeprefix("eval_").replace("_", " ") if len(values) > 1 else None
            if not raw and len(steps) >= FEWEST_SMOOTHED:
                _line(canvas, steps, found, color, size[0], faint=True)
                _line(canvas, steps, smoothed(found), color, size[0], told=told)
            else:
                _line(canvas, steps, found, color, size[0], told=told, dots=len(steps) < 30)
        _resumes(canvas, resumed_at, _extent(*(steps for steps, _ in lines.values())), told=False)
        _step_axis(canvas)
        if share:
            canvas.axes.set_ylim(-0.02, 1.02)
            canvas.axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        elif max(abs(found).max(initial=0) for _, found in lines.values()) < _SMALL:
            canvas.axes.yaxis.set_major_formatter(lambda value, _: scientific(value))
        if len(values) > 1:
            canvas.figure.legend(loc="outside upper left", ncols=2)

    return drawn(draw, size=size, label=label)


def _training(canvas: Canvas, steps: Numbers, values: Numbers, columns: int) -> None:
    if len(steps) >= FEWEST_SMOOTHED:
        _line(canvas, steps, values, "train", columns, faint=True, told="training, as logged")
        _line(canvas, steps, smoothed(values), "train", columns, told="smoothed")
    elif len(steps):
        _line(canvas, steps, values, "train", columns, told="training", dots=True)


def _validation(canvas: Canvas, steps: Numbers, values: Numbers, columns: int) -> None:
    if not len(steps):
        return
    few = len(steps) <= _MOST_TIPS
    _line(canvas, steps, values, "eval", columns, told="validation")
    color = canvas.color("eval")
    for step, value in zip(steps, values, strict=True) if few else ():
        (dot,) = canvas.axes.plot([step], [value], "o", color=color, ms=4, clip_on=False)
        canvas.tip(dot, f"validation loss {value:.4f} after step {step:.0f}")
    best = int(values.argmin())
    (mark,) = canvas.axes.plot(
        [steps[best]],
        [values[best]],
        "D",
        color=canvas.color("good"),
        ms=8,
        clip_on=False,
        label="best",
        zorder=5,
        ls="",
    )
    canvas.tip(mark, f"best validation loss {values[best]:.4f} after step {steps[best]:.0f}")


def _line(
    canvas: Canvas,
    steps: Numbers,
    values: Numbers,
    color: str,
    columns: int,
    *,
    faint: bool = False,
    told: str | None = None,
    dots: bool = False,
) -> None:
    canvas.axes.plot(
        *thinned(steps, values, columns),
        color=canvas.color(color),
        alpha=0.45 if faint else None,
        lw=1 if faint else 2,
        label=told,
        marker="o" if dots else None,
        ms=4,
        clip_on=False,
    )


def _resumes(
    canvas: Canvas, steps: Sequence[int], extent: tuple[float, float], *, told: bool = True
) -> None:
    inside = [step for step in steps if extent[0] <= step <= extent[1]][:_MOST_MARKS]
    for place, step in enumerate(inside):
        label = "resumed" if told and place == 0 else None
        mark = canvas.axes.axvline(step, color=canvas.color("quiet"), ls=(0, (4, 4)), lw=1)
        mark.set_label(label or "_")
        canvas.tip(mark, f"resumed at step {step}")


def _not_finite(canvas: Canvas, history: History) -> None:
    for place, (step, value) in enumerate(not_finite(history, "loss")[:_MOST_MARKS]):
        mark = canvas.axes.axvline(step, color=canvas.color("bad"), lw=2)
        mark.set_label("_" if place else "not finite")
        canvas.tip(mark, f"the loss of step {step} is {value}")


def _step_axis(canvas: Canvas) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    canvas.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    canvas.axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    canvas.axes.yaxis.set_major_locator(MaxNLocator(5))
    canvas.axes.set_xlabel("step")
    canvas.axes.margins(x=0.01)


def _extent(*steps: Numbers) -> tuple[float, float]:
    ends = [float(end) for each in steps if len(each) for end in (each[0], each[-1])]
    return min(ends), max(ends)


def _in_words(train: tuple[Numbers, Numbers], validation: tuple[Numbers, Numbers]) -> str:
    """The curve in words."""
    parts = []
    for name, (steps, values) in (("Training", train), ("Validation", validation)):
        if len(steps):
            parts.append(
                f"{name} loss from {values[0]:.4g} at step {steps[0]:.0f} "
                f"to {values[-1]:.4g} at step {steps[-1]:.0f}"
            )
    return "; ".join(parts)
