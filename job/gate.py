"""The promotion gate: is the adapter good enough, and better than the base model?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PASSED: Final = "passed"
"""What the record says of a gate that was set and did not fail."""

_ROUNDING: Final = 1e-9
"""0.7 - 0.6 is a little less than 0.1 in binary: a gain of just the threshold has to pass."""


def verdict(
    evaluation: Mapping[str, Any] | None, min_exact: float | None, min_gain: float | None
) -> str | None:
    """Why the gate failed, or None where it passed or isn't set.

    Without held-out tool calls there is nothing to judge by: a gate that is set has then failed,
    since promoting unseen would be the worse mistake.
    """
    if min_exact is None and min_gain is None:
        return None
    exact = evaluation and evaluation["adapter"].get("exact")
    if not evaluation or not exact:
        return "no held-out tool calls to judge by"
    rate = float(exact["rate"])
    gain = rate - float(evaluation["base"]["exact"]["rate"])
    failures = []
    if min_exact is not None and rate < min_exact - _ROUNDING:
        failures.append(f"exactly right {rate:.1%}, FORGE_GATE_MIN_EXACT is {min_exact:.1%}")
    if min_gain is not None and gain < min_gain - _ROUNDING:
        failures.append(f"gain over the base {gain:+.1%}, FORGE_GATE_MIN_GAIN is {min_gain:+.1%}")
    return "; ".join(failures) or None
