"""What tells rows apart: hashes of a conversation, of its prompt and of its id, and a sketch.

All are fixed for ever: another hash would move held-out rows into training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from job.dataset.rows.row import Row

Hashes = npt.NDArray[np.uint64]

BANDS: Final = 3
_ROWS_A_BAND: Final = 4
"""Two prompts that share a fraction j of their shingles share a band with 1 - (1 - j^4)^3: 96% at
0.9, 34% at 0.6 (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4)."""
_SHINGLE: Final = 16
"""Bytes, from the beginning of a word."""
_SKETCHED: Final = 1024
"""Bytes of a prompt that are looked at."""
_KEPT: Final = 65536
"""Characters; the digests of longer system turns aren't kept."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is kept of a row to tell it from others: 64 bits each."""

    content: int
    """Of all that the model sees."""
    prompt: int
    """Of what comes before the first answer; case and white space don't count in what the user
    says."""
    id: int
    """Of the row's `id`, 0 without one."""
    asked: str
    """What the user says before the first answer, without case and white space."""

    @classmethod
    def of(cls, row: Row) -> Identity:
        said: list[str] = []
        parts: list[bytes] = []
        for turn in row.messages:
            if turn["role"] == "assistant":
                break
            if turn["role"] == "system":
                parts.append(_digest(turn["content"]))
            else:
                said.append(" ".join(turn["content"].casefold().split()))
                parts.append(said[-1].encode())
        return cls(_content(row), _hash(b"\0".join(parts)), _id(row), " ".join(said))


def _content(row: Row) -> int:
    try:
        return _hash(orjson.dumps((row.messages, row.tools)))
    except TypeError:  # a whole number over 64 bits
        return _hash(repr((row.messages, row.tools)).encode())


def _id(row: Row) -> int:
    given = row.meta.get("id")
    if given is None or given == "" or isinstance(given, (dict, list)):
        return 0
    return _hash(repr(given).encode())


def sketches(prompts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Of each prompt (as `Identity.asked` has it) the MinHash bands, shape `(len(prompts), BANDS)`.

    Prompts that are nearly the same have a band in common (Broder, 1997: On the resemblance and
    containment of documents).
    """
    if not prompts:
        return np.empty((0, BANDS), dtype=np.uint32)
    texts = [prompt.encode()[:_SKETCHED] for prompt in prompts]
    gap = b" " * _SHINGLE  # no shingle reaches into the next prompt
    data = gap.join(texts) + gap
    bounds = np.cumsum([0] + [len(text) + _SHINGLE for text in texts])
    blank = np.frombuffer(data, dtype=np.uint8) == ord(" ")
    starts = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    # Every prompt has at least the shingle that it begins with.
    starts = np.union1d(starts, bounds[:-1])
    shingles = mixed(_words(data, starts) ^ mixed(_words(data, starts + 8)))
    firsts = np.searchsorted(starts, bounds[:-1])
    least = [np.minimum.reduceat(shingles * multiplier, firsts) for multiplier in _MULTIPLIERS]
    rows = np.stack(least, axis=1).reshape(len(prompts), BANDS, _ROWS_A_BAND)
    return mixed(_folded(rows)).astype(np.uint32)


def _words(data: bytes, starts: npt.NDArray[np.int64]) -> Hashes:
    """Eight bytes from each place."""
    every = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    return every[starts].astype(np.uint64)


def _folded(rows: Hashes) -> Hashes:
    folded = np.zeros(rows.shape[:2], dtype=np.uint64)
    for i in range(rows.shape[2]):
        folded = mixed(folded ^ rows[:, :, i])
    return folded


def mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_MULTIPLIERS: Final = [
    np.uint64(2 * int(value) + 1)
    for value in mixed(np.arange(1, BANDS * _ROWS_A_BAND + 1, dtype=np.uint64)) >> np.uint64(1)
]


def _digest(text: str) -> bytes:
    return _kept_digest(text) if len(text) <= _KEPT else _hashed(text.encode())


@lru_cache(maxsize=256)
def _kept_digest(text: str) -> bytes:
    return _hashed(text.encode())


def _hash(data: bytes) -> int:
    return int.from_bytes(_hashed(data))


def _hashed(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:8]  # most processors have instructions for it
