"""What tells rows apart: hashes of a conversation, of its prompt and of its id, and a sketch.

All are fixed for ever: another hash would move held-out rows into training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import orjson

from job.dataset.row import Row

Hashes = npt.NDArray[np.uint64]

BANDS: Final = 3
_ROWS_A_BAND: Final = 4
"""Two prompts that share a fraction j of their shingles share a band with 1 - (1 - j^4)^3: 96% at
0.9, 34% at 0.6 (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4)."""
_SHINGLE: Final = 16
"""Bytes, from the beginning of a word."""
_SKETCHED: Final = 4096
"""Bytes of a prompt that are looked at."""
_CACHED_SYSTEM: Final = 65536
"""Characters; longer system turns are hashed anew each time."""


def content_hash(row: Row) -> int:
    """64 bits of all that the model sees of the row."""
    try:
        seen = orjson.dumps((row.messages, row.tools))
    except TypeError:  # a whole number over 64 bits
        seen = repr((row.messages, row.tools)).encode()
    return _hash(seen)


def prompt_hash(row: Row) -> int:
    """64 bits of what comes before the first answer; case and white space don't count in what
    the user says."""
    parts = []
    for turn in row.messages[: row.assistant_turns[0]]:
        text = turn["content"]
        if turn["role"] != "system":
            parts.append(plain(text).encode())
        elif len(text) <= _CACHED_SYSTEM:
            parts.append(_system_digest(text))
        else:
            parts.append(hashlib.blake2b(text.encode(), digest_size=8).digest())
    return _hash(b"\0".join(parts))


def id_hash(row: Row) -> int:
    """64 bits of the row's `id`, 0 without one."""
    given = row.meta.get("id")
    if given is None or given == "" or isinstance(given, (dict, list)):
        return 0
    return _hash(repr(given).encode())


def asked(row: Row) -> str:
    """What the user says before the first answer, without case and white space."""
    turns = row.messages[: row.assistant_turns[0]]
    return " ".join(plain(turn["content"]) for turn in turns if turn["role"] != "system")


def plain(text: str) -> str:
    """Without case and extra white space."""
    return " ".join(text.casefold().split())


def sketches(prompts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Of each prompt (as `asked` gives it) the MinHash bands, shape `(len(prompts), BANDS)`.

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
    shingles = _mixed(_words(data, starts) ^ _mixed(_words(data, starts + 8)))
    firsts = np.searchsorted(starts, bounds[:-1])
    least = [
        np.minimum.reduceat(_mixed(shingles * multiplier), firsts) for multiplier in _MULTIPLIERS
    ]
    rows = np.stack(least, axis=1).reshape(len(prompts), BANDS, _ROWS_A_BAND)
    return _mixed(_folded(rows)).astype(np.uint32)


def _words(data: bytes, starts: npt.NDArray[np.int64]) -> Hashes:
    """Eight bytes from each place."""
    every = np.ndarray((len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    return every[starts].astype(np.uint64)


def _folded(rows: Hashes) -> Hashes:
    folded = np.zeros(rows.shape[:2], dtype=np.uint64)
    for i in range(rows.shape[2]):
        folded = _mixed(folded ^ rows[:, :, i])
    return folded


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


mixed = _mixed

_MULTIPLIERS: Final = [
    np.uint64(2 * int(value) + 1)
    for value in _mixed(np.arange(1, BANDS * _ROWS_A_BAND + 1, dtype=np.uint64)) >> np.uint64(1)
]


@lru_cache(maxsize=256)
def _system_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
