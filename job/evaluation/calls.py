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
from job.evaluation.intervals import gain_interval, share_interval

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


def summarize(
    scores: Sequence[Score], groups: Sequence[Hashable] | None = None
) -> dict[str, dict[str, float]]:
    """Measure → `rate`, its 95% interval `low` to `high`, `count`, `of` and how many `groups`.

    `refusal` and `text_match` are over the turns that expect no call, all others over those that
    do. A measure with nothing to judge is left out. Turns of the same group may be alike
    (`job.evaluation.intervals`); without `groups` each is one of its own.
    """
    measures = _judged(scores, groups)
    return {name: _rate(*map(list, zip(*found, strict=True))) for name, found in measures if found}


def gains(
    base: Sequence[Score], adapter: Sequence[Score], groups: Sequence[Hashable] | None = None
) -> dict[str, dict[str, float]]:
    """Measure → the adapter's rate less the base's (`rate`) and its 95% interval, the turns paired
    (`intervals.gain_interval`)."""
    found = {}
    both = zip(_judged(base, groups), _judged(adapter, groups), strict=True)
    for (name, before), (_, after) in both:
        pairs = [(b, a) for (b, _), (a, _) in zip(before, after, strict=True)]
        if pairs:
            low, high = gain_interval(pairs, [group for _, group in after])
            rate = sum(a - b for b, a in pairs) / len(pairs)
            found[name] = {"rate": rate, "low": low, "high": high}
    return found


def _judged(
    scores: Sequence[Score], groups: Sequence[Hashable] | None
) -> list[tuple[str, list[tuple[bool, Hashable]]]]:
    """Each measure's verdicts, with the turns' groups, over the turns that it is of."""
    every = list(zip(scores, range(len(scores)) if groups is None else groups, strict=True))
    calls = [(score, group) for score, group in every if score.expects_call]
    others = [(score, group) for score, group in every if not score.expects_call]
    verdicts: list[tuple[str, list[tuple[bool | None, Hashable]]]] = [
        ("well_formed", [(score.well_formed, group) for score, group in calls]),
        ("valid_arguments", [(score.valid, group) for score, group in calls]),
        ("right_tool", [(score.right_tool, group) for score, group in calls]),
        ("exact", [(score.exact, group) for score, group in calls]),
        ("refusal", [(score.refused_rightly, group) for score, group in others]),
        ("text_match", [(score.text_match, group) for score, group in others]),
    ]
    return [
        (name, [(right, group) for right, group in found if right is not None])
        for name, found in verdicts
    ]


def _rate(right: list[bool], groups: list[Hashable]) -> dict[str, float]:
    (low, high), count, of = share_interval(right, groups), sum(right), len(right)
    known = {"count": count, "of": of, "groups": len(set(groups))}
    return {"rate": count / of, "low": low, "high": high, **known}


def _key(call: ToolCall) -> Hashable:
    return call.name, _json_key(call.arguments)


def _json_key(value: Any) -> Hashable:
    """Equal for equal JSON: 1 is 1.0 but not true, and the order of keys means nothing."""
    if isinstance(value, dict):
        return "object", frozenset((name, _json_key(item)) for name, item in value.items())
    if isinstance(value, list):
        return "list", tuple(_json_key(item) for item in value)
    return isinstance(value, bool), value
