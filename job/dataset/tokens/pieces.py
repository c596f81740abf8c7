"""Encoding piece by piece, each distinct piece once.

A tokenizer takes its special tokens out of a text first and encodes what lies between them piece
by piece, so a piece that was seen before (the system turn with the tools, in most rows of a tool
server) needs no second encoding, and the ids are those of the whole text. Where the characters of
a token lie follows from the bytes that each id of a byte-level vocabulary stands for: asking the
tokenizer for offsets costs as much again as encoding. Both hold for some tokenizers only, and each
conversation is checked: its tokens must add up to its bytes.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from job.dataset.recent import Recent
from job.dataset.tokens.samples import NO_IDS, Ids, Positions, Rendered, Span

_CACHED_CHARACTERS: Final = 16_000_000
"""Text that came twice or more and whose ids are kept, twice at most: some 100 MB with the ids."""
_BYTE_LEVEL_STEPS: Final = {"ByteLevel", "Digits", "Sequence", "Split"}
"""Pre-tokenizers that look at one piece alone and keep every byte of it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One conversation's tokens, where each lies in the text, and the trained spans of the text;
    both counted in bytes, or both in characters."""

    ids: Ids
    starts: Positions
    ends: Positions
    spans: Sequence[Span]

    @classmethod
    def plain(cls, encoding: Any, spans: Sequence[Span]) -> Tokens:
        """With the tokenizer's own offsets."""
        places = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        return cls(np.array(encoding.ids, dtype=np.int32), places[:, 0], places[:, 1], spans)


class Pieces:
    """Encodes text between special tokens, each distinct piece once."""

    def __init__(self, tokenizer: Tokenizer, special: dict[str, int], normalizes: bool) -> None:
        self._tokenizer = tokenizer
        self._normalizes = normalizes
        self._special = {text: np.array([i], dtype=np.int32) for text, i in special.items()}
        longest_first = sorted(map(re.escape, special), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(longest_first) + ")").split
        self._seen: Recent[Ids] = Recent(_CACHED_CHARACTERS)
        self._widths = _widths(tokenizer)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Pieces | None:
        """`None` for a tokenizer whose pieces might not be encoded as they are in the whole."""
        description = json.loads(tokenizer.to_str())
        added = description["added_tokens"]
        first = [token for token in added if not token["normalized"]]
        plain = not any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in first)
        normalizers = _steps(description["normalizer"], "normalizers")
        pretokenizers = _steps(description["pre_tokenizer"], "pretokenizers")
        names = {step["type"] for step in pretokenizers}
        sound = (
            first
            and plain
            and description["model"]["type"] == "BPE"
            and not description["model"].get("dropout")
            and all(step["type"] == "NFC" for step in normalizers)
            and "ByteLevel" in names
            and names <= _BYTE_LEVEL_STEPS
            and not any(step.get("add_prefix_space") for step in pretokenizers)
        )
        if not sound:
            return None
        return cls(tokenizer, {t["content"]: t["id"] for t in first}, bool(normalizers))

    def surely_longer(self, text: str, tokens: int) -> bool:
        """Whether `text` can't be encoded in so many tokens, told without encoding it."""
        return len(text) > tokens * int(self._widths.max(initial=1))

    def encode(self, batch: Sequence[Rendered]) -> list[Tokens | None]:
        """`None` where the tokens don't add up to the text's bytes."""
        split = [self._split(rendered.text) for rendered in batch]
        known = self._known(split)
        return [
            self._joined(rendered, [known[piece] for piece in pieces if piece])
            for rendered, pieces in zip(batch, split, strict=True)
        ]

    def _joined(self, rendered: Rendered, parts: list[Ids]) -> Tokens | None:
        ids = np.concatenate([NO_IDS, *parts])
        widths = self._widths[ids]
        ends = np.cumsum(widths)
        text = rendered.text
        size = len(text) if text.isascii() else len(text.encode())
        if not self._sound(text) or (ends[-1] if len(ends) else 0) != size:
            return None
        return Tokens(ids, ends - widths, ends, _in_bytes(rendered))

    def _sound(self, text: str) -> bool:
        """Whether the tokenizer's normalizer leaves the text as it is."""
        return not self._normalizes or text.isascii() or unicodedata.is_normalized("NFC", text)

    def _known(self, split: list[list[Any]]) -> dict[str, Ids]:
        """Ids of every piece of a batch, encoded now where they weren't."""
        known, missing = dict(self._special), []
        for pieces in split:
            for piece in pieces:
                if piece in known or not piece:
                    continue
                ids = self._seen.get(piece)
                if ids is None:
                    missing.append(piece)
                    ids = NO_IDS
                known[piece] = ids
        encodings = self._tokenizer.encode_batch_fast(missing, add_special_tokens=False)
        for piece, encoding in zip(missing, encodings, strict=True):
            numbers = encoding.ids
            known[piece] = np.fromiter(numbers, np.int32, len(numbers))
            self._seen.put(piece, known[piece])
        return known


def _steps(description: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer, sequences taken apart."""
    if description is None:
        return []
    if description["type"] == "Sequence":
        return [step for part in description[inner] for step in _steps(part, inner)]
    return [description]


def _widths(tokenizer: Tokenizer) -> Positions:
    """Bytes that each id stands for. In a byte-level vocabulary each character is one byte."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    widths = np.zeros(max(vocabulary.values(), default=-1) + 1, dtype=np.int64)
    for token, i in vocabulary.items():
        widths[i] = len(token)
    for i, added in tokenizer.get_added_tokens_decoder().items():
        widths[i] = len(added.content.encode())
    return widths


def _in_bytes(rendered: Rendered) -> Sequence[Span]:
    """The spans counted in bytes of UTF-8."""
    text = rendered.text
    if text.isascii():
        return rendered.spans
    spans: list[Span] = []
    place = size = 0
    for first, last in rendered.spans:
        begin = size + len(text[place:first].encode())
        place, size = last, begin + len(text[first:last].encode())
        spans.append((begin, size))
    return spans
