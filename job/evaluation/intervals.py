"""95% intervals: of a share, and of the difference of two shares of the same turns.

Turns of one conversation, and of conversations that begin alike, tend to be right or wrong
together, so they tell less than as many that are strangers. By how much is the design effect, by
which the counts are divided before the interval is made: J. N. K. Rao and A. J. Scott, "A simple
method for the analysis of clustered binary data", Biometrics 48 (1992), 577-585; with Wilson's
interval C. Franco, R. Little, T. Louis and E. Slud, "Comparative study of confidence intervals for
proportions in complex sample surveys", Journal of Survey Statistics and Methodology 7 (2019),
334-364.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Final

_Z_95: Final = 1.959963984540054
"""The standard normal's 97.5% quantile."""


def share_interval(right: Sequence[bool], groups: Sequence[Hashable]) -> tuple[float, float]:
    """Of the share of turns that are right, at least one; `groups` has the group of each.

    The lower end is never above that of turns that are all right, nor the upper one below that of
    turns that are all wrong: there the groups count as one turn each.
    """
    effect = design_effect(right, groups, middle=0.5)
    low, high = wilson(sum(right) / effect, len(right) / effect)
    if effect == 1.0 and len(set(groups)) == len(right):
        return low, high
    fewest = len(right) / design_effect([True] * len(right), groups, middle=0.5)
    return min(low, wilson(fewest, fewest)[0]), max(high, wilson(0, fewest)[1])


def gain_interval(
    pairs: Sequence[tuple[bool, bool]], groups: Sequence[Hashable]
) -> tuple[float, float]:
    """Of the share of turns whose second is right less that whose first is."""
    effect = design_effect([after - before for before, after in pairs], groups, middle=0.0)
    table = ((True, True), (False, True), (True, False), (False, False))
    return paired_difference(*(pairs.count(pair) / effect for pair in table))


def design_effect(values: Sequence[float], groups: Sequence[Hashable], *, middle: float) -> float:
    """By how much the variance of the mean exceeds that of as many independent values.

    Rao and Scott's ratio: the squared sums of the groups' deviations over the squared deviations;
    1 where each value is a group of its own, and never less. Two groups of typical size are added,
    one all half a unit above `middle` and one all below: where nearly all values are the same there
    is no telling how alike those of a group are, and then they count as one. So a model without a
    fault doesn't have a wider interval than one with a fault or two.
    """
    members = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    if len(members) == len(values):
        return 1.0
    size = sum(len(group) ** 2 for group in members.values()) / len(values)
    mean = (sum(values) + 2 * size * middle) / (len(values) + 2 * size)
    added = [middle + 0.5 - mean, middle - 0.5 - mean]
    together = sum(sum(value - mean for value in group) ** 2 for group in members.values())
    together += sum((size * far) ** 2 for far in added)
    alone = sum((value - mean) ** 2 for value in values) + sum(size * far**2 for far in added)
    return max(1.0, together / alone)


def wilson(count: float, of: float) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, 1927), which stays sensible at 0 and 1. `of` > 0."""
    share, z2 = count / of, _Z_95**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    # At the ends the formula gives 0 and 1 but for rounding.
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == of else min(1.0, middle + half)
    return low, high


def paired_difference(
    both: float, first: float, second: float, neither: float
) -> tuple[float, float]:
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


def _correlation(both: float, first: float, second: float, neither: float) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    found = both * neither - first * second
    if found > 0:
        found = max(0.0, found - (both + first + second + neither) / 2)
    return found / math.sqrt(margins)


def _hypotenuse(a: float, b: float, cosine: float) -> float:
    return math.sqrt(max(0.0, a * a - 2 * cosine * a * b + b * b))
