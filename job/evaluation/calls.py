"""Is the generated tool call the expected one? Counted, with intervals that say how sure we are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from job.dataset import Toolbox
from job.dataset.rows.hermes import Malformed, ToolCall, parse_tool_calls, read_call

__all__ = [
    "Malformed",
    "Score",
    "ToolCall",
    "by_tool",
    "expected_calls",
    "parse_tool_calls",
    "score",
    "summarize",
    "wilson",
]

_Z_95: Final = 1.959963984540054
"""The standard normal's 97.5% quantile."""


@dataclass(frozen=True, slots=True)
class Score:
    """One assistant turn, generated, against the one that is expected."""

    expects_call: bool
    called: bool
    """There is a call in the answer, or something meant as one."""
    well_formed: bool
    """Every call in it can be read, and there is at least one."""
    right_tool: bool
    """Well-formed, and the names are the expected ones, each as often as expected."""
    exact: bool
    """Well-formed, and the calls are the expected ones, in any order, by JSON equality."""
    valid: bool | None = None
    """Well-formed, and every call is of a declared tool with arguments that its JSON Schema takes;
    None where no tools were given to judge by."""

    @property
    def refused_rightly(self) -> bool:
        """No call was expected, and none was made."""
        return not self.expects_call and not self.called


def expected_calls(turn: Mapping[str, Any]) -> list[ToolCall]:
    """The calls of an assistant turn of the data, from its text and its `tool_calls`.

    Raises `ValueError` for a turn that would not have passed the checks of the data.
    """
    calls = parse_tool_calls(turn.get("content") or "")
    calls += [read_call(call["function"]) for call in turn.get("tool_calls") or ()]
    malformed = [call.reason for call in calls if isinstance(call, Malformed)]
    if malformed:
        raise ValueError(f"the expected turn has a call that {malformed[0]}")
    return [call for call in calls if isinstance(call, ToolCall)]


def score(
    expected_turn: Mapping[str, Any], generated_text: str, tools: Toolbox | None = None
) -> Score:
    """Judge one answer, `tools` being what the conversation declares.

    Raises `ValueError` as `expected_calls` does.
    """
    expected = expected_calls(expected_turn)
    generated = parse_tool_calls(generated_text)
    calls = [call for call in generated if isinstance(call, ToolCall)]
    well_formed = bool(generated) and len(calls) == len(generated)
    names = Counter(call.name for call in calls) == Counter(call.name for call in expected)
    return Score(
        expects_call=bool(expected),
        called=bool(generated),
        well_formed=well_formed,
        right_tool=well_formed and names,
        exact=well_formed and Counter(map(_key, calls)) == Counter(map(_key, expected)),
        valid=None if tools is None else well_formed and all(_fits(c, tools) for c in calls),
    )


def _fits(call: ToolCall, tools: Toolbox) -> bool:
    schema = tools.schema(call.name)
    return schema is not None and not schema.faults(call.arguments)


def summarize(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Measure → `rate`, its 95% interval `low` to `high`, `count` and `of`.

    `refusal` is over the turns that expect no call, all others over those that do. A measure with
    nothing to judge is left out.
    """
    calls = [score for score in scores if score.expects_call]
    others = [score for score in scores if not score.expects_call]
    measures = {
        "well_formed": [score.well_formed for score in calls],
        "valid_arguments": [score.valid for score in calls if score.valid is not None],
        "right_tool": [score.right_tool for score in calls],
        "exact": [score.exact for score in calls],
        "refusal": [score.refused_rightly for score in others],
    }
    return {name: _rate(sum(right), len(right)) for name, right in measures.items() if right}


def by_tool(
    expected: Sequence[Mapping[str, Any]], base: Sequence[Score], adapter: Sequence[Score]
) -> dict[str, dict[str, int]]:
    """Expected tool → turns that expect it (`of`), and how many of them `base` and `adapter` got
    exactly right; the most frequent first. A turn of several tools counts for each of them."""
    found: dict[str, dict[str, int]] = {}
    for turn, before, after in zip(expected, base, adapter, strict=True):
        for name in {call.name for call in expected_calls(turn)}:
            row = found.setdefault(name, {"of": 0, "base": 0, "adapter": 0})
            row["of"] += 1
            row["base"] += before.exact
            row["adapter"] += after.exact
    return dict(sorted(found.items(), key=lambda item: (-item[1]["of"], item[0])))


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson, 1927), which stays sensible at 0 and 1. `of` > 0."""
    share, z2 = count / of, _Z_95**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z_95 / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    # At the ends the formula gives 0 and 1 but for rounding.
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == of else min(1.0, middle + half)
    return low, high


def _rate(count: int, of: int) -> dict[str, float]:
    low, high = wilson(count, of)
    return {"rate": count / of, "low": low, "high": high, "count": count, "of": of}


def _key(call: ToolCall) -> Hashable:
    return call.name, _json_key(call.arguments)


def _json_key(value: Any) -> Hashable:
    """Equal for equal JSON: 1 is 1.0 but not true, and the order of keys means nothing."""
    if isinstance(value, dict):
        return "object", frozenset((name, _json_key(item)) for name, item in value.items())
    if isinstance(value, list):
        return "list", tuple(_json_key(item) for item in value)
    return isinstance(value, bool), value
