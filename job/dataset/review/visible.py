"""Text of the data as a page may show it: nothing hidden, nothing that acts, no secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Final, TypeAlias

from markupsafe import Markup, escape

Mask: TypeAlias = Callable[[str], str]
"""Replaces the secrets in a text."""

_HIDDEN: Final = "•"
_WORD: Final = re.compile(r"\w+|\W")
_ISLAND: Final = 12
"""Characters between two masked parts that are still taken as part of one secret."""

_BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for code in range(0xE0100, 0xE01F0)
}
"""Letters and marks that draw nothing; text can be hidden in them too."""
_KEPT: Final = "\u3000"
"""A space that can be seen."""
_WHITE: Final = {
    "\n": Markup('<span class="n">\n</span>'),
    "\t": Markup('<span class="t">\t</span>'),
}
"""Their marks are drawn by the style sheet, so that text which is copied has none."""


def visible(text: str) -> Markup:
    """`text` as HTML in which every character can be seen and none changes the order of others.

    A control, format (bidi, zero-width), private or unassigned character, a lone surrogate and a
    space other than U+0020 stand as a `<b>` with their code point.
    """
    if text.isprintable() and _BLANK.isdisjoint(text):
        return escape(text)
    return Markup("").join(_character(character) for character in text)


def plain(text: str) -> str:
    """The same for places that take no elements, as a page's title."""
    return "".join(c if _is_visible(c) else f"[{_code(c)}]" for c in text)


def hide(text: str, mask: Mask) -> str:
    """`text` with a `•` for each character that `mask` replaces; all others keep their place.

    What is shown between two replaced parts is a word that stands in the masked text too.
    """
    masked = mask(text)
    if masked == text:
        return text
    shown: list[str] = []
    end = 0
    for start, stop in _kept(_WORD.findall(text), _WORD.findall(masked)):
        shown += [_HIDDEN * (start - end), text[start:stop]]
        end = stop
    return "".join(shown) + _HIDDEN * (len(text) - end)


def _kept(words: list[str], masked: list[str]) -> Iterator[tuple[int, int]]:
    """The characters of `words`, first and one after the last, that are in `masked` too; in order.

    A secret may hold words that stand elsewhere as well: a short part in the middle of what was
    masked is not shown.
    """
    ends = [0, *accumulate(map(len, words))]
    head = _shared_words(words, masked)
    tail = _shared_words(words[head:][::-1], masked[head:][::-1])
    middle = slice(head, len(words) - tail), slice(head, len(masked) - tail)
    yield 0, ends[head]
    matcher = SequenceMatcher(None, words[middle[0]], masked[middle[1]])
    for first, _, count in matcher.get_matching_blocks():
        start, stop = ends[head + first], ends[head + first + count]
        if stop - start >= _ISLAND:
            yield start, stop
    yield ends[len(words) - tail], ends[-1]


def _shared_words(one: list[str], other: list[str]) -> int:
    """How many words both begin with."""
    unlike = (i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(unlike, min(len(one), len(other)))


def _character(character: str) -> Markup:
    if character in _WHITE:
        return _WHITE[character]
    if _is_visible(character):
        return escape(character)
    return Markup("<b>{}</b>").format(_code(character))


def _is_visible(character: str) -> bool:
    return character in _KEPT or (character.isprintable() and character not in _BLANK)


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"
