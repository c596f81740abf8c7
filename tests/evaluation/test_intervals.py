"""The interval of a difference, against published figures and by its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.evaluation.calls import Score, gains
from job.evaluation.intervals import paired_difference

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
