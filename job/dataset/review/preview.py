"""`mask-preview.html`: which tokens of sample conversations are trained. No network, no script."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from job.dataset.review.visible import Mask, hide, plain, visible
from job.dataset.tokens.samples import IGNORED
from job.pages import environment

_MOST_CONVERSATIONS: Final = 50
_MOST_PIECES: Final = 4096
"""Of a conversation; the middle of a longer one is left out. Even."""
_MOST_META: Final = 20
_MOST_META_TEXT: Final = 300
"""Characters of one value."""
_OPEN: Final = 5
"""Conversations that are unfolded from the beginning."""
_LOOK_AHEAD: Final = 8
"""Tokens that a character may be spread over; UTF-8 has four bytes at most."""
_BROKEN: Final = "\ufffd"
"""What a decoder puts for bytes that are no character."""
_LENGTHS: Final = {
    "min": "shortest",
    "mean": "mean",
    "p50": "median",
    "p95": "95% are at most",
    "max": "longest",
}
_NOTICES: Final = {
    "trimmed": ("cut at a turn to fit", "trimmed_examples"),
    "duplicates": ("the same conversation as another row", "duplicate_examples"),
    "leakage": ("training prompt nearly that of an evaluation row", "leakage_examples"),
}

TextOfIds: TypeAlias = Callable[[Sequence[int]], str]
"""`tokenizers.Tokenizer.decode` that keeps special tokens."""


@dataclass(frozen=True)
class PreviewToken:
    """A token, or several that only together are a character."""

    text: str
    """As decoded; special tokens as they are written."""
    trained: bool


@dataclass(frozen=True)
class PreviewConversation:
    """A row of the data as the trainer gets it."""

    where: str
    """File and line."""
    side: str
    """`train` or `evaluation`."""
    tokens: int
    supervised: int
    """Tokens that are trained."""
    pieces: tuple[PreviewToken, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    """The row's other keys."""


def pieces(
    text_of_ids: TextOfIds, ids: Sequence[int], labels: Sequence[int]
) -> tuple[PreviewToken, ...]:
    """The text of each token; tokens that share a character are one piece.

    Where some of these are trained and others are not, each stands alone, with � for its bytes.
    Apart from that the texts joined are the text of all `ids`.
    """
    made: list[PreviewToken] = []
    before: list[int] = []
    start = 0
    while start < len(ids):
        ahead = [int(token) for token in ids[start : start + _LOOK_AHEAD]]
        size, text = _shared(text_of_ids, before, ahead)
        before = ahead[:size]
        trained = [label != IGNORED for label in labels[start : start + size]]
        if all(trained) or not any(trained):
            made.append(PreviewToken(text, trained[0]))
        else:
            alone = [text_of_ids([token]) for token in before]
            made += [PreviewToken(*each) for each in zip(alone, trained, strict=True)]
        start += size
    return tuple(made)


def _shared(text_of_ids: TextOfIds, before: Sequence[int], ahead: Sequence[int]) -> tuple[int, str]:
    """How many of the tokens `ahead` share their first character, and their text."""

    def text(first: int, end: int) -> str:
        return _following(text_of_ids, before, ahead[first:end])

    one = text(0, 1)
    if not one.endswith(_BROKEN):
        return 1, one
    # A cut between characters: the texts of both sides are the text of all.
    ends = range(2, len(ahead) + 1)
    whole = next((end for end in ends if not text(0, end).endswith(_BROKEN)), len(ahead))
    cuts = (cut for cut in range(1, whole) if text(0, cut) + text(cut, whole) == text(0, whole))
    size = next(cuts, whole)
    return size, text(0, size)


def _following(text_of_ids: TextOfIds, before: Sequence[int], ids: Sequence[int]) -> str:
    """What `ids` add to the text of `before`: some tokenizers drop the first space of a text."""
    known, whole = text_of_ids(before), text_of_ids([*before, *ids])
    return whole[len(known) :] if whole.startswith(known) else text_of_ids(ids)


def _as_it_is(text: str) -> str:
    return text


def mask_preview(
    conversations: Sequence[PreviewConversation],
    summary: Mapping[str, Any],
    *,
    title: str,
    mask: Mask = _as_it_is,
) -> bytes:
    """The page. `summary` is `DataReport.as_dict()`; what it lacks isn't shown.

    `mask` replaces the secrets in a text. All that the page shows goes through it, a conversation
    as a whole: a secret may be spread over many tokens.
    """
    templates = environment(__package__ or "")
    templates.filters |= {
        "shown": lambda value: visible(mask(str(value))),
        "plain": lambda value: plain(mask(str(value))),
    }
    page = templates.get_template("preview.html.jinja").render(
        title=title,
        facts=list(_facts(summary)),
        lengths=_lengths(summary),
        notices=list(_notices(summary)),
        conversations=views(conversations[:_MOST_CONVERSATIONS], mask),
        unshown=max(len(conversations) - _MOST_CONVERSATIONS, 0),
        open=_OPEN,
    )
    return page.encode()


def views(
    conversations: Sequence[PreviewConversation], mask: Mask = _as_it_is
) -> list[dict[str, Any]]:
    """What the template `conversation.html.jinja` takes of each, secrets masked."""
    return [_shown(each, mask) for each in conversations]


def _shown(conversation: PreviewConversation, mask: Mask) -> dict[str, Any]:
    hidden = _hidden(conversation.pieces, mask)
    half = _MOST_PIECES // 2
    cut = hidden[half:-half] if len(hidden) > _MOST_PIECES else []
    tokens, supervised = conversation.tokens, conversation.supervised
    return {
        "where": conversation.where,
        "side": conversation.side,
        "tokens": tokens,
        "supervised": supervised,
        "share": supervised / tokens if tokens else 0.0,
        "strip": list(_strip(hidden)),
        "pieces": len(hidden),
        "meta": [(key, _meta_text(value, mask)) for key, value in conversation.meta.items()],
        "most_meta": _MOST_META,
        "head": _marked(hidden[:half] if cut else hidden),
        "cut": len(cut),
        "cut_trained": sum(piece.trained for piece in cut),
        "tail": _marked(hidden[-half:] if cut else []),
    }


def _hidden(tokens: Sequence[PreviewToken], mask: Mask) -> list[PreviewToken]:
    """The same tokens without the secrets in their text as a whole."""
    text, end = hide("".join(token.text for token in tokens), mask), 0
    found = []
    for token in tokens:
        start, end = end, end + len(token.text)
        found.append(PreviewToken(text[start:end], token.trained))
    return found


def _marked(tokens: Sequence[PreviewToken]) -> Markup:
    """The text, trained runs in `<mark>`; every second token of a run in `<i>`, which is shaded."""
    parts: list[str] = []
    for trained, run in groupby(tokens, key=attrgetter("trained")):
        texts = [visible(token.text) for token in run if token.text]
        body = "".join(f"<i>{text}</i>" if i % 2 else text for i, text in enumerate(texts))
        parts.append(f"<mark>{body}</mark>" if trained else body)
    return Markup("".join(parts))  # noqa: S704 `visible` has escaped every text


def _strip(tokens: Sequence[PreviewToken]) -> Iterator[tuple[int, float]]:
    """Where trained runs lie: first piece and number of pieces, drawn wide enough to be seen."""
    start = 0
    for trained, run in groupby(tokens, key=attrgetter("trained")):
        size = sum(1 for _ in run)
        if trained:
            yield start, max(size, len(tokens) / 300)
        start += size


def _meta_text(value: Any, mask: Mask) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = mask(text)
    if len(text) <= _MOST_META_TEXT:
        return text
    return f"{text[:_MOST_META_TEXT]} … ({len(text):,} characters)"


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(label, figure, remark) of each total that is known."""
    counts = dict(summary.get("counts") or {})
    if summary.get("rows") is not None:
        yield "rows", f"{summary['rows']:,}", ""
    for side in ("train", "evaluation"):
        if side in counts:
            yield side, f"{counts.pop(side):,}", ""
    if counts:
        named = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
        yield "left out", f"{sum(counts.values()):,}", ", ".join(named)
    if summary.get("tokens") is not None:
        yield "tokens", f"{summary['tokens']:,}", "in the training rows"
    if summary.get("supervised_tokens") is not None:
        ratio = summary.get("supervised_ratio")
        share = "" if ratio is None else f"{ratio:.1%} of these"
        yield "trained tokens", f"{summary['supervised_tokens']:,}", share


def _lengths(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, tokens) of the conversations' lengths and their limit."""
    known = {_LENGTHS.get(k, k): v for k, v in (summary.get("lengths") or {}).items()}
    known["limit"] = summary.get("max_seq_length")
    return [(label, f"{value:,}") for label, value in known.items() if value is not None]


def _notices(summary: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    """(rows, what the user should know of them, the first of them)."""
    for name, (what, examples) in _NOTICES.items():
        if summary.get(name):
            yield summary[name], what, _first(summary.get(examples))
    for kind, found in (summary.get("warnings") or {}).items():
        if found.get("count"):
            yield found["count"], kind, _first(found.get("examples"))


def _first(examples: Sequence[Mapping[str, Any]] | None) -> str:
    if not examples:
        return ""
    return "{uri}:{line}: {detail}".format_map(examples[0])
