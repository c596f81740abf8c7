"""95% intervals: of a share, and of the difference of two shares of the same turns."""

from __future__ import annotations

import math
from typing import Final

_Z_95: Final = 1.959963984540054
"""The standard normal's 97.5% quantile."""


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, 1927), which stays sensible at 0 and 1. `of` > 0."""
    share, z2 = count / of, _Z_95**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    # At the ends the formula gives 0 and 1 but for rounding.
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == of else min(1.0, middle + half)
    return low, high


def paired_difference(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """The 95% interval of the first share less the second, both of the same turns.

    The counts are of turns that both, only the first, only the second and neither got right; there
    is at least one turn. Method 10 of R. G. Newcombe, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", Statistics in Medicine 17
    (1998), 2635-2650: Wilson's intervals of both shares, put together with the correlation that
    the pairs show, which is corrected for continuity where it is positive.
    """
    of = both + first + second + neither
    share, other = (both + first) / of, (both + second) / of
    (low, high), (other_low, other_high) = wilson(both + first, of), wilson(both + second, of)
    phi = _correlation(both, first, second, neither)
    below = _hypotenuse(share - low, other_high - other, phi)
    above = _hypotenuse(high - share, other - other_low, phi)
    difference = share - other
    return max(-1.0, difference - below), min(1.0, difference + above)


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    found = float(both * neither - first * second)
    if found > 0:
        found = max(0.0, found - (both + first + second + neither) / 2)
    return found / math.sqrt(margins)


def _hypotenuse(a: float, b: float, cosine: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * cosine * a * b + b * b))
