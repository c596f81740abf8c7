"""The promotion gate at, above and below its thresholds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.gate import verdict


def evaluation(base: float, adapter: float) -> dict[str, Any]:
    return {"base": {"exact": {"rate": base}}, "adapter": {"exact": {"rate": adapter}}}


@pytest.mark.parametrize("result", [None, {}, evaluation(1, 0)])
def test_no_gate_is_set(result: dict[str, Any] | None) -> None:
    assert verdict(result, None, None) is None


@pytest.mark.parametrize(
    "result", [None, {}, {"base": {}, "adapter": {}}, {"base": {}, "adapter": {"refusal": {}}}]
)
@pytest.mark.parametrize(("exact", "gain"), [(0.0, None), (None, -1.0), (0.0, -1.0)])
def test_a_gate_without_anything_to_judge_by_fails(
    result: dict[str, Any] | None, exact: float | None, gain: float | None
) -> None:
    assert verdict(result, exact, gain) == "no held-out tool calls to judge by"


@pytest.mark.parametrize(
    ("base", "adapter", "exact", "gain"),
    [
        (0.0, 0.5, 0.5, None),
        (0.0, 0.9, 0.5, None),
        (0.2, 0.5, None, 0.2),
        (0.2, 0.5, None, -0.5),
        (0.5, 0.4, None, -0.2),
        (0.0, 0.8, 0.5, 0.5),
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0, 0.0),
    ],
)
def test_it_passes(base: float, adapter: float, exact: float | None, gain: float | None) -> None:
    assert verdict(evaluation(base, adapter), exact, gain) is None


@pytest.mark.parametrize(
    ("base", "adapter", "exact", "gain", "why"),
    [
        (0.0, 0.4, 0.5, None, "exactly right 40.0%, FORGE_GATE_MIN_EXACT is 50.0%"),
        (0.4, 0.5, None, 0.2, "gain over the base +10.0%, FORGE_GATE_MIN_GAIN is +20.0%"),
        (0.5, 0.4, None, 0.0, "gain over the base -10.0%, FORGE_GATE_MIN_GAIN is +0.0%"),
        (
            0.5,
            0.4,
            0.6,
            0.1,
            (
                "exactly right 40.0%, FORGE_GATE_MIN_EXACT is 60.0%; "
                "gain over the base -10.0%, FORGE_GATE_MIN_GAIN is +10.0%"
            ),
        ),
        (0.9, 0.8, 0.5, 0.1, "gain over the base -10.0%, FORGE_GATE_MIN_GAIN is +10.0%"),
    ],
)
def test_it_fails_and_says_by_how_much(
    base: float, adapter: float, exact: float | None, gain: float | None, why: str
) -> None:
    assert verdict(evaluation(base, adapter), exact, gain) == why


@given(st.integers(1, 100), st.data())
def test_a_gain_of_just_the_threshold_passes(rows: int, data: st.DataObject) -> None:
    """0.7 - 0.6 is 0.09999999999999998: the people who set 0.1 mean one row in ten."""
    base = data.draw(st.integers(0, rows))
    right = data.draw(st.integers(base, rows))
    gain = round((right - base) / rows, 12)
    result = evaluation(base / rows, right / rows)
    assert verdict(result, None, gain) is None
    assert verdict(result, right / rows, gain) is None
    assert verdict(result, None, (right - base + 1) / rows) is not None
