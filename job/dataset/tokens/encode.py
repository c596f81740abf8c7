"""From rendered conversations to token ids and labels, as fast as the tokenizer allows.

A tokenizer takes its special tokens out of a text first and encodes what lies between them piece
by piece, so a piece that was seen before (the system turn with the tools, in most rows of a tool
server) needs no second encoding, and the ids are those of the whole text. Where the characters of
a token lie follows from the bytes that each id of a byte-level vocabulary stands for: asking the
tokenizer for offsets costs as much again as encoding. Both are used only with tokenizers for which
they hold, and each conversation is checked: its tokens must add up to its bytes. All others go
the plain way.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from job.dataset.recent import Recent

IGNORED: Final = -100
"""The label that no loss is computed on, as in PyTorch."""

Ids: TypeAlias = npt.NDArray[np.int32]
Positions: TypeAlias = npt.NDArray[np.int64]
Span: TypeAlias = tuple[int, int]
"""First character and the one after the last."""
LossOn: TypeAlias = Literal["assistant", "all"]

_CACHED_CHARACTERS: Final = 16_000_000
"""Text that came twice or more and whose ids are kept, twice at most: some 100 MB with the ids."""
_NO_IDS: Final[Ids] = np.empty(0, dtype=np.int32)
_BYTE_LEVEL_STEPS: Final = {"ByteLevel", "Digits", "Sequence", "Split"}
"""Pre-tokenizers that look at one piece alone and keep every byte of it."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the model reads it."""

    text: str
    spans: tuple[Span, ...]
    """What each assistant turn says, its end-of-turn token included; in order, disjoint."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the trainer gets of a conversation."""

    input_ids: Ids
    labels: Ids
    """The token where it is trained, else `IGNORED`."""

    @property
    def supervised(self) -> int:
        """Tokens that are trained."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True, slots=True)
class Encoded:
    """The samples of a batch, one after another in two flat arrays."""

    ids: Ids
    labels: Ids
    bounds: Positions
    """Where each sample begins, and where the last one ends: one more than samples."""
    straddling: npt.NDArray[np.bool_]
    """By sample: a token holds text of a turn's header and of its answer, and isn't trained."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Encoded:
        """A batch of samples that were made one by one."""
        bounds = np.zeros(len(samples) + 1, dtype=np.int64)
        np.cumsum([len(sample.input_ids) for sample in samples], out=bounds[1:])
        return cls(
            np.concatenate([_NO_IDS, *(sample.input_ids for sample in samples)]),
            np.concatenate([_NO_IDS, *(sample.labels for sample in samples)]),
            bounds,
            np.zeros(len(samples), dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        place = slice(self.bounds[index], self.bounds[index + 1])
        return Sample(self.ids[place], self.labels[place])

    @property
    def lengths(self) -> Positions:
        """Tokens of each sample."""
        return np.diff(self.bounds)

    def supervised(self) -> Positions:
        """Trained tokens of each sample."""
        running = np.concatenate([[0], np.cumsum(self.labels != IGNORED)])
        return np.diff(running[self.bounds]).astype(np.int64)


class Encoder:
    """A tokenizer with the pieces it has seen. Not thread-safe."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces = _Pieces.of(tokenizer)

    def encode(self, batch: Sequence[Rendered], loss_on: LossOn) -> Encoded:
        """Some hundred conversations at a time keep every core busy."""
        tokenized = self._tokenized(batch)
        arrays = [tokens.ids for tokens in tokenized]
        bounds = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(array) for array in arrays], out=bounds[1:])
        ids = np.concatenate([_NO_IDS, *arrays])
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

    def _tokenized(self, batch: Sequence[Rendered]) -> list[_Tokens]:
        """The fast way for each conversation that it holds for, the plain way for the others."""
        fast: list[_Tokens | None] = [None] * len(batch)
        if self._pieces is not None:
            fast = self._pieces.encode(batch)
        others = [rendered for rendered, tokens in zip(batch, fast, strict=True) if tokens is None]
        encodings = iter(
            self._tokenizer.encode_batch(
                [rendered.text for rendered in others], add_special_tokens=False
            )
        )
        return [
            tokens or _Tokens.plain(next(encodings), rendered.spans)
            for rendered, tokens in zip(batch, fast, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """One conversation's tokens, where each lies in the text, and the trained spans of the text;
    both counted in bytes, or both in characters."""

    ids: Ids
    starts: Positions
    ends: Positions
    spans: Sequence[Span]

    @classmethod
    def plain(cls, encoding: Any, spans: Sequence[Span]) -> _Tokens:
        """With the tokenizer's own offsets."""
        places = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        return cls(np.array(encoding.ids, dtype=np.int32), places[:, 0], places[:, 1], spans)


def _inside(starts: Positions, ends: Positions, first: int, last: int) -> tuple[int, int]:
    """Which tokens lie in a span with all their characters: the first, and the one after the last.

    A token of no width stands before the character at its place.
    """
    a = int(np.searchsorted(starts, first, "left"))
    b = int(np.searchsorted(ends, last, "right"))
    while b > a and starts[b - 1] >= last:
        b -= 1
    return a, max(a, b)


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


class _Pieces:
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
    def of(cls, tokenizer: Tokenizer) -> _Pieces | None:
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

    def encode(self, batch: Sequence[Rendered]) -> list[_Tokens | None]:
        """`None` where the tokens don't add up to the text's bytes."""
        split = [self._split(rendered.text) for rendered in batch]
        known = self._known(split)
        return [
            self._joined(rendered, [known[piece] for piece in pieces if piece])
            for rendered, pieces in zip(batch, split, strict=True)
        ]

    def _joined(self, rendered: Rendered, parts: list[Ids]) -> _Tokens | None:
        ids = np.concatenate([_NO_IDS, *parts])
        widths = self._widths[ids]
        ends = np.cumsum(widths)
        text = rendered.text
        size = len(text) if text.isascii() else len(text.encode())
        if not self._sound(text) or (ends[-1] if len(ends) else 0) != size:
            return None
        return _Tokens(ids, ends - widths, ends, _in_bytes(rendered))

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
                    ids = _NO_IDS
                known[piece] = ids
        encodings = self._tokenizer.encode_batch_fast(missing, add_special_tokens=False)
        for piece, encoding in zip(missing, encodings, strict=True):
            known[piece] = np.array(encoding.ids, dtype=np.int32)
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
