"""The intervals, against published figures and by their coverage, of turns that are alike too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.evaluation.calls import Score, gains
from job.evaluation.intervals import (
    design_effect,
    gain_interval,
    paired_difference,
    share_interval,
    wilson,
)

counts = st.integers(0, 300)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Newcombe (1998), method 10.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        # Altman, Machin, Bryant and Gardner, "Statistics with confidence" (2000), table 6.2.
        ((14, 5, 0, 22), 0.011, 0.226),
    ],
)
def test_by_published_figures(table: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_difference(*table) == pytest.approx((low, high), abs=5e-4)


@given(st.tuples(counts, counts, counts, counts).filter(any))
def test_it_holds_the_difference_and_turns_with_the_pair(table: tuple[int, int, int, int]) -> None:
    both, first, second, neither = table
    low, high = paired_difference(*table)
    assert -1 <= low <= (first - second) / sum(table) + 1e-12
    assert (first - second) / sum(table) - 1e-12 <= high <= 1
    assert paired_difference(both, second, first, neither) == pytest.approx((-high, -low))


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.05, 0.25), (0.1, 0.6, 0.0, 0.3)])
def test_it_covers_the_truth_nineteen_times_in_twenty(shares: tuple[float, ...]) -> None:
    drawn = np.random.default_rng(0).multinomial(60, shares, size=2000)
    truth = shares[1] - shares[2]
    bounds = [paired_difference(*map(int, table)) for table in drawn]
    covered = sum(low <= truth <= high for low, high in bounds) / len(bounds)
    assert 0.93 <= covered <= 0.99


def test_gains_pair_the_turns() -> None:
    right, wrong = (Score(True, True, True, x, x) for x in (True, False))
    base, adapter = [right, wrong, wrong, wrong], [wrong, right, right, right]
    found = gains(base, adapter)
    assert found["exact"]["rate"] == 0.5
    assert (found["exact"]["low"], found["exact"]["high"]) == paired_difference(0, 3, 1, 0)
    assert found["well_formed"]["rate"] == 0
    assert set(found) == {"well_formed", "right_tool", "exact"}


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_turns_that_are_all_strangers_have_wilsons_interval(right: list[bool]) -> None:
    strangers = range(len(right))
    assert share_interval(right, strangers) == wilson(sum(right), len(right))
    both = [(before, True) for before in right]
    expected = paired_difference(sum(right), right.count(False), 0, 0)
    assert gain_interval(both, strangers) == expected


def in_groups(count: int, size: int) -> list[int]:
    return [number // size for number in range(count * size)]


@pytest.mark.parametrize(("count", "size"), [(3, 8), (20, 4), (5, 20), (60, 4)])
def test_groups_that_are_each_of_one_kind_count_as_one_turn(count: int, size: int) -> None:
    groups = in_groups(count, size)
    right = [group % 2 == 0 for group in groups]
    assert design_effect(right, groups, middle=0.5) == pytest.approx(size, rel=1e-9)
    everything = share_interval([True] * len(groups), groups)
    assert everything == pytest.approx(wilson(count, count))
    for wrong in range(1, size * count):  # a fault never makes the bound better
        shuffled = [number * 7 % (size * count) >= wrong for number in range(len(groups))]
        assert share_interval(shuffled, groups)[0] <= everything[0]


ALIKE = pytest.mark.parametrize(
    ("count", "size", "correlation"),
    [(60, 4, 0.33), (60, 8, 0.33), (20, 8, 0.33), (60, 4, 0.7), (60, 4, 0.0), (60, 1, 0.0)],
)
"""Conversations, turns in each, and how alike these are (intra-class correlation)."""


def drawn(shares: list[float], count: int, correlation: float, of: int) -> np.ndarray:
    """The shares of each group, over `of` samples: they scatter around the given ones."""
    generator = np.random.default_rng(0)
    if not correlation:
        return np.broadcast_to(np.array(shares), (of, count, len(shares)))
    scale = (1 - correlation) / correlation
    return generator.dirichlet(np.array(shares) * scale, size=(of, count))


@ALIKE
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_share_of_turns_that_are_alike_is_covered_nineteen_times_in_twenty(
    count: int, size: int, correlation: float, share: float
) -> None:
    """As turns that are strangers, 8 in each of 60 conversations were covered 71 times in 100."""
    generator, groups = np.random.default_rng(1), in_groups(count, size)
    covered = naive = 0
    for sample in drawn([share, 1 - share], count, correlation, of=300):
        right = (generator.random((count, size)) < sample[:, :1]).ravel().tolist()
        low, high = share_interval(right, groups)
        covered += low <= share <= high
        low, high = wilson(sum(right), len(right))
        naive += low <= share <= high
    assert covered / 300 >= 0.92
    assert naive / 300 < 0.9 or correlation == 0


@ALIKE
@pytest.mark.parametrize("shares", [[0.5, 0.2, 0.05, 0.25], [0.1, 0.6, 0.01, 0.29]])
def test_so_is_a_gain(count: int, size: int, correlation: float, shares: list[float]) -> None:
    generator, groups = np.random.default_rng(2), in_groups(count, size)
    kinds = [(True, True), (False, True), (True, False), (False, False)]
    truth, covered = shares[1] - shares[2], 0
    for sample in drawn(shares, count, correlation, of=300):
        of_each = [generator.choice(4, size=size, p=one) for one in sample]
        pairs = [kinds[kind] for kind in np.concatenate(of_each)]
        low, high = gain_interval(pairs, groups)
        covered += low <= truth <= high
    assert covered / 300 >= 0.92
