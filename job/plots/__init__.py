"""Every drawing of the job, as static SVG: curves of training, time line, measures.

matplotlib is imported when something is drawn, never when this package is: commands that draw
nothing start in a blink. Text of the data never becomes part of a drawing.
"""

from job.plots.curves import curve_svg, loss_curve_svg, loss_svg
from job.plots.held import Bar, attempts_svg
from job.plots.intervals import Interval, intervals_svg
from job.plots.series import FEWEST_SMOOTHED, not_finite, smoothing_weight

__all__ = [
    "FEWEST_SMOOTHED",
    "Bar",
    "Interval",
    "attempts_svg",
    "curve_svg",
    "intervals_svg",
    "loss_curve_svg",
    "loss_svg",
    "not_finite",
    "smoothing_weight",
]
