"""Is the generated tool call the expected one? Counted, with intervals that say how sure we are."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from job.choices import TextMatch
from job.dataset import Toolbox
from job.dataset.rows.hermes import Malformed, ToolCall, parse_tool_calls, read_call
from job.evaluation.forms import HERMES_ONLY, Form, read_calls
from job.evaluation.intervals import paired_difference, wilson

__all__ = [
    "Malformed",
    "Score",
    "TextMatch",
    "ToolCall",
    "expected_calls",
    "gains",
    "normalized",
    "parse_tool_calls",
    "score",
    "summarize",
]

_THINKING: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)


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
    cut_off: bool = False
    """The answer did not end by itself: its calls and its text are wrong, whatever they are."""
    undecided: bool = False
    """It was cut off before it said anything but thoughts."""
    text_match: bool | None = None
    """The text is the expected one; None where a call was expected, or nobody asked."""

    @property
    def refused_rightly(self) -> bool:
        """No call was expected, and none was made. Words without end are no call either."""
        return not self.expects_call and not self.called and not self.undecided

    @property
    def right(self) -> bool:
        """The calls are exact, or rightly there are none."""
        return self.exact if self.expects_call else self.refused_rightly


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
    expected_turn: Mapping[str, Any],
    generated_text: str,
    tools: Toolbox | None = None,
    *,
    cut_off: bool = False,
    text_match: TextMatch = "off",
    forms: Sequence[Form] = HERMES_ONLY,
) -> Score:
    """Judge one answer, `tools` being what the conversation declares.

    `cut_off` says that it was ended from outside, `forms` how calls in it may be written. What the
    model thinks is not judged; thinking that begins the answer and never ends leaves nothing to
    judge. Raises `ValueError` as `expected_calls` does, and never for what was generated.
    """
    expected = expected_calls(expected_turn)
    answer = generated_text
    if answer.lstrip().startswith("<think>"):
        answer = _THINKING.sub("", answer, count=1)
    generated = read_calls(answer, forms)
    calls = [call for call in generated if isinstance(call, ToolCall)]
    well_formed = bool(generated) and len(calls) == len(generated) and not cut_off
    names = Counter(call.name for call in calls) == Counter(call.name for call in expected)
    compares = text_match != "off" and not expected
    wanted = str(expected_turn.get("content") or "")
    return Score(
        expects_call=bool(expected),
        called=bool(generated),
        well_formed=well_formed,
        right_tool=well_formed and names,
        exact=well_formed and Counter(map(_key, calls)) == Counter(map(_key, expected)),
        valid=None if tools is None else well_formed and all(_fits(c, tools) for c in calls),
        cut_off=cut_off,
        undecided=cut_off and not answer.strip(),
        text_match=not cut_off and _same(wanted, answer, text_match) if compares else None,
    )


def _same(expected: str, generated: str, how: TextMatch) -> bool:
    first, second = (_THINKING.sub("", text).strip() for text in (expected, generated))
    return first == second if how == "exact" else normalized(first) == normalized(second)


def normalized(text: str) -> str:
    """NFKC, case folded, punctuation (Unicode's P) left out, white space as single blanks.

    As SQuAD's evaluation does, but for articles, which are English only, and for all alphabets.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (c for c in folded if not unicodedata.category(c).startswith("P"))
    return " ".join("".join(kept).split())


def _fits(call: ToolCall, tools: Toolbox) -> bool:
    schema = tools.schema(call.name)
    return schema is not None and not schema.faults(call.arguments)


def summarize(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Measure → `rate`, its 95% interval `low` to `high`, `count` and `of`.

    `refusal` and `text_match` are over the turns that expect no call, all others over those that
    do. A measure with nothing to judge is left out.
    """
    measures = {name: [r for r in found if r is not None] for name, found in _judged(scores)}
    return {name: _rate(sum(right), len(right)) for name, right in measures.items() if right}


def gains(base: Sequence[Score], adapter: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Measure → the adapter's rate less the base's (`rate`) and its 95% interval, the turns paired
    (`intervals.paired_difference`)."""
    found = {}
    for (name, before), (_, after) in zip(_judged(base), _judged(adapter), strict=True):
        pairs = Counter(
            (bool(b), bool(a))
            for b, a in zip(before, after, strict=True)
            if b is not None and a is not None
        )
        if pairs:
            both, won, lost = pairs[True, True], pairs[False, True], pairs[True, False]
            low, high = paired_difference(both, won, lost, pairs[False, False])
            found[name] = {"rate": (won - lost) / pairs.total(), "low": low, "high": high}
    return found


def _judged(scores: Sequence[Score]) -> list[tuple[str, list[bool | None]]]:
    """Each measure's verdicts, over the turns that it is of."""
    calls = [score for score in scores if score.expects_call]
    others = [score for score in scores if not score.expects_call]
    return [
        ("well_formed", [score.well_formed for score in calls]),
        ("valid_arguments", [score.valid for score in calls]),
        ("right_tool", [score.right_tool for score in calls]),
        ("exact", [score.exact for score in calls]),
        ("refusal", [score.refused_rightly for score in others]),
        ("text_match", [score.text_match for score in others]),
    ]


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
