"""How held-out answers are to be read, found out from what is trained, before any model is there.

A template writes the calls of `tool_calls` in a form of its own, and a tokenizer may keep the tags
of a form as special tokens. So what the model is trained to say is read as an answer would be: a
turn whose expected answer is not found to be right can't be judged, and no figure is made of it.
Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median_high
from typing import Any, Final

from job.dataset import ChatFormat, Row, distinct_turns, groups_of
from job.dataset.rows.secrets import mask_secrets
from job.evaluation.calls import expected_calls, score
from job.evaluation.document import Turn, repeated
from job.evaluation.forms import Form

MAX_NEW_TOKENS: Final = 512
"""Longer than nearly all tool calls; a model that never stops is cut here, what it may think before
not counted, unless most of the expected calls need more."""

_BEGINS, _ENDS = "<think>", "</think>"
_SHOWN: Final = 120
"""Characters of an answer that can't be read."""


@dataclass(frozen=True)
class Reading:
    """The held-out turns, and what there is to say of how they are judged."""

    turns: list[Turn]
    """Those that can be judged, in the order of the rows; the same one once."""
    unread: list[Turn]
    """Those whose own expected answer would not be found right."""
    unknown: bool
    """The template writes the calls of `tool_calls` in a form that is not known."""
    lengths: list[tuple[int, int]]
    """Tokens that each of `turns` thinks and says."""
    repeated: int
    """Turns of the rows that are left out, as each is the same as one of those above."""

    @property
    def calls(self) -> list[Turn]:
        """Of the turns that can be judged, those that expect a call."""
        return [turn for turn in self.turns if expected_calls(turn.expected)]

    @property
    def call_groups(self) -> list[int]:
        """The group of each of `calls`: in which they are split, and may be alike."""
        return groups_of([turn.row for turn in self.calls])

    @property
    def max_new_tokens(self) -> int:
        """Tokens an answer may have: half more than the longest right one needs.

        A model that never stops, as bases often do, is wrong by then and would cost the most time.
        """
        thought = max((tokens for tokens, _ in self.lengths), default=0)
        return thought + thought // 2 + self._answer_limit

    @property
    def _answer_limit(self) -> int:
        """Of these, those after the thoughts. A few long turns don't make all dear, but where calls
        are mostly long there has to be room for them."""
        longest = max((said for _, said in self.lengths), default=0)
        calls = [
            said
            for turn, (_, said) in zip(self.turns, self.lengths, strict=True)
            if expected_calls(turn.expected)
        ]
        usual = median_high(calls) if calls else 0
        return min(max(MAX_NEW_TOKENS, _with_room(usual)), _with_room(longest))

    @property
    def no_call_is_judged(self) -> bool:
        """There are turns that expect a call, and none of them can be judged."""
        return not self.calls and any(expected_calls(turn.expected) for turn in self.unread)

    @property
    def not_judged(self) -> dict[str, Any] | None:
        """As the document of an evaluation has it: without a word of the data, for it goes into the
        card."""
        return {"turns": len(self.unread), "why": self._why()} if self.unread else None

    @property
    def fault(self) -> str:
        """Why turns can't be judged, with the first of them; empty where all can."""
        if not self.unread:
            return ""
        said = " ".join(mask_secrets(self._first_unread.says or "").split())
        shown = said if len(said) <= _SHOWN else said[:_SHOWN] + "…"
        return f"{self._why()}; first: {_where(self._first_unread)}: {shown!r}"

    def notices(self) -> Iterator[str]:
        """What the user should know, a line each."""
        if self.unread:
            count = f"{len(self.unread)} of {len(self.unread) + len(self.turns)} held-out turns"
            yield f"{count} can't be judged and count for nothing: {self.fault}"
        limit = self._answer_limit
        long = [i for i, (_, said) in enumerate(self.lengths) if said > limit]
        if long:
            yield (
                f"{len(long)} of {len(self.turns)} held-out turns expect more than the {limit} "
                "tokens that an answer may have: their calls and texts count as wrong, whatever is "
                f"answered; first: {_where(self.turns[long[0]])}"
            )

    @property
    def _first_unread(self) -> Turn:
        return next((t for t in self.unread if t.expected.get("tool_calls")), self.unread[0])

    def _why(self) -> str:
        if self.unknown:
            return "the chat template writes calls in a form that is not known"
        if expected_calls(self._first_unread.expected):
            return "the call that is trained would be read as another one, or as none"
        return "the text that is trained would be read as a call"


def read_turns(chat: ChatFormat, rows: Sequence[Row]) -> Reading:
    """Every assistant turn of `rows`, with how its answers are read. Raises `RowRefused` for a row
    that the data stage would not have let through."""
    turns, tokens = _as_trained(chat, rows)
    written = [turn for turn in turns if turn.expected.get("tool_calls")]
    form = _form_of(written)
    unknown = bool(written) and form is None
    with_forms = [replace(turn, forms=_forms_in(turn.row, form)) for turn in turns]
    readable = [_is_right(turn) and not (unknown and _by_template(turn.row)) for turn in with_forms]
    kept = [i for i, fine in enumerate(readable) if fine]
    return Reading(
        turns=[with_forms[i] for i in kept],
        unread=[turn for turn, fine in zip(with_forms, readable, strict=True) if not fine],
        unknown=unknown,
        lengths=[tokens[i] for i in kept],
        repeated=repeated(rows, turns),
    )


def _as_trained(chat: ChatFormat, rows: Sequence[Row]) -> tuple[list[Turn], list[tuple[int, int]]]:
    """The distinct turns with what they say, and the tokens of its thoughts and of the rest."""
    spans: dict[int, dict[int, str]] = {}
    found: list[tuple[Row, int]] = []
    for row, index in distinct_turns(rows):
        found.append((row, index))
        if id(row) not in spans:
            spans[id(row)] = _trained_texts(chat, row)
    parts = [_split_thoughts(spans[id(row)][index]) for row, index in found]
    thoughts = chat.read_back([thought for thought, _ in parts])
    said = chat.read_back([rest for _, rest in parts])
    both = list(zip(thoughts, said, strict=True))
    turns = [
        Turn(row, index, says=thought + text)
        for (row, index), ((thought, _), (text, _)) in zip(found, both, strict=True)
    ]
    return turns, [(thinks, says) for (_, thinks), (_, says) in both]


def _trained_texts(chat: ChatFormat, row: Row) -> dict[int, str]:
    """Index of each assistant turn → its trained text, without the token that ends it."""
    rendered = chat.render(row)
    ends = sorted(chat.turn_ends, key=len, reverse=True)
    texts = {}
    for index, span in zip(row.assistant_turns, rendered.spans, strict=True):
        text = rendered.text[slice(*span)]
        texts[index] = text.removesuffix(next(filter(text.endswith, ends), ""))
    return texts


def _split_thoughts(text: str) -> tuple[str, str]:
    """Thoughts and the rest. The prompt may have begun the thinking that the text goes on with."""
    thought, closed, rest = text.partition(_ENDS)
    if not closed:
        return "", text
    begun = "" if thought.lstrip().startswith(_BEGINS) else _BEGINS
    return begun + thought + closed, rest


def _form_of(written: Sequence[Turn]) -> Form | None:
    """In which the template writes `tool_calls`: the one by which most are read rightly."""
    right = dict.fromkeys(Form, 0)
    for form in Form:
        right[form] = sum(_is_right(replace(turn, forms=(form,))) for turn in written)
        if right[form] == len(written):
            break
    best = max(right, key=lambda form: right[form])
    return best if right[best] else None


def _forms_in(row: Row, form: Form | None) -> tuple[Form, ...]:
    """Rows that declare tools beside their messages have the template write calls; others have
    them in their text, as Hermes does."""
    if not _by_template(row):
        return (Form.HERMES,)
    forms = tuple(Form) if form is None else (form,)
    in_text = any("<tool_call>" in str(turn.get("content") or "") for turn in row.messages)
    return tuple(dict.fromkeys((Form.HERMES, *forms))) if in_text else forms


def _by_template(row: Row) -> bool:
    return bool(row.tools) or any(turn.get("tool_calls") for turn in row.messages)


def _is_right(turn: Turn) -> bool:
    return score(turn.expected, turn.says or "", forms=turn.forms).right


def _with_room(tokens: int) -> int:
    return tokens + tokens // 2 + 16


def _where(turn: Turn) -> str:
    return f"{turn.row.where}: messages[{turn.index}]"
