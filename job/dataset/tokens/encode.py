"""From rendered conversations to token ids and labels: the fast way for tokenizers that allow it
(`job.dataset.tokens.pieces`), the plain way for all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from job.choices import LossOn
from job.dataset.tokens.pieces import Pieces, Tokens
from job.dataset.tokens.samples import IGNORED, NO_IDS, Encoded, Ids, Positions, Rendered

_VAST: Final = 500_000
"""Characters from which a text that is too long anyway is encoded part by part: the tokenizer takes
some 200 bytes for each."""
_PART: Final = 64 * 1024
"""Characters of such a part."""
_PARTS: Final = 16
"""That are encoded at once."""
_NOWHERE: Final[Positions] = np.empty(0, dtype=np.int64)


class Encoder:
    """A tokenizer with the pieces it has seen. May be used by several threads: at worst a piece is
    encoded twice."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces = Pieces.of(tokenizer)

    def surely_longer(self, text: str, tokens: int) -> bool:
        """Whether `text` can't be encoded in so many tokens; with some tokenizers never sure."""
        return self._pieces is not None and self._pieces.surely_longer(text, tokens)

    def is_longer(self, text: str, tokens: int) -> bool:
        """Whether `text` takes more tokens than that, for sure; it is encoded to tell it, a
        vast one only until nothing depends on where its parts were cut."""
        if len(text) > _VAST:
            counted = accumulate(map(len, self._by_part(text)))
            if any(count > 2 * tokens for count in counted):
                return True
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return len(encoding.ids) > tokens

    def encode(self, batch: Sequence[Rendered], loss_on: LossOn) -> Encoded:
        """Some hundred conversations at a time keep every core busy."""
        tokenized = self._tokenized(batch)
        arrays = [tokens.ids for tokens in tokenized]
        bounds = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=bounds[1:])
        ids = np.concatenate([NO_IDS, *arrays])
        straddling = np.zeros(len(arrays), dtype=np.bool_)
        if loss_on == "all":
            return Encoded(ids, ids, bounds, straddling)
        labels = np.full(len(ids), IGNORED, dtype=np.int32)
        for i, tokens in enumerate(tokenized):
            for first, last in tokens.spans:
                a, b = _inside(tokens.starts, tokens.ends, first, last)
                labels[bounds[i] + a : bounds[i] + b] = tokens.ids[a:b]
                straddling[i] |= a > 0 and bool(tokens.ends[a - 1] > first)
        return Encoded(ids, labels, bounds, straddling)

    def _tokenized(self, batch: Sequence[Rendered]) -> list[Tokens]:
        """The fast way for each conversation that it holds for, the plain way for the others."""
        found = [self._unplaced(r.text) if _is_vast(r) else None for r in batch]
        if self._pieces is not None:
            fast = iter(self._pieces.encode(_left(batch, found)))
            found = [tokens or next(fast) for tokens in found]
        texts = [rendered.text for rendered in _left(batch, found)]
        encodings = iter(self._tokenizer.encode_batch(texts, add_special_tokens=False))
        return [
            tokens or Tokens.plain(next(encodings), rendered.spans)
            for rendered, tokens in zip(batch, found, strict=True)
        ]

    def _unplaced(self, text: str) -> Tokens:
        """Tokens whose number is that of the text's, but for a few where a part has no blank to end
        before."""
        return Tokens(np.concatenate(list(self._by_part(text))), _NOWHERE, _NOWHERE, ())

    def _by_part(self, text: str) -> Iterator[Ids]:
        parts = list(_parts(text))
        for first in range(0, len(parts), _PARTS):
            some = parts[first : first + _PARTS]
            for encoding in self._tokenizer.encode_batch_fast(some, add_special_tokens=False):
                yield np.array(encoding.ids, dtype=np.int32)


def _is_vast(rendered: Rendered) -> bool:
    """Whether it is too long to be trained on, and no matter where its tokens lie."""
    return not rendered.spans and len(rendered.text) > _VAST


def _parts(text: str) -> Iterator[str]:
    """Each ends before a blank where it can: tokenizers take that to the word after it."""
    first = 0
    while first < len(text):
        whole = first + _PART
        blank = text.rfind(" ", first + 1, whole) if whole < len(text) else -1
        end = blank if blank > 0 else whole
        yield text[first:end]
        first = end


def _left(batch: Sequence[Rendered], found: Sequence[Tokens | None]) -> list[Rendered]:
    return [rendered for rendered, tokens in zip(batch, found, strict=True) if tokens is None]


def _inside(starts: Positions, ends: Positions, first: int, last: int) -> tuple[int, int]:
    """Which tokens lie in a span with all their characters: the first, and the one after the last.

    A token of no width stands before the character at its place.
    """
    a = int(np.searchsorted(starts, first, "left"))
    b = int(np.searchsorted(ends, last, "right"))
    while b > a and starts[b - 1] >= last:
        b -= 1
    return a, max(a, b)
