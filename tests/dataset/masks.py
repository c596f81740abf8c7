"""What must be trained, worked out from the token ids alone.

No offsets, no spans: each id of a byte-level vocabulary stands for known bytes, so the ids give
back the text with the place of every token in it, and the family's own markers in that text say
which of it the assistant wrote. A token that reaches beyond the turn isn't trained.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from typing import Final

from tokenizers import Tokenizer

from job.dataset import Row, Sample
from tests.dataset.standin_families import Family

IGNORED: Final = -100
"""PyTorch's label for what no loss is computed on."""


@dataclass(frozen=True)
class Stretch:
    """Neighboring tokens that are all trained, or all not."""

    text: str
    trained: bool


def token_bytes(tokenizer: Tokenizer, ids: list[int]) -> list[bytes]:
    """What each id stands for."""
    added = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()}
    return [
        added[i].encode()
        if i in added
        else bytes(_BYTES[c] for c in tokenizer.id_to_token(i) or "")
        for i in ids
    ]


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text that the ids stand for, special tokens included."""
    return b"".join(token_bytes(tokenizer, ids)).decode()


def stretches(tokenizer: Tokenizer, sample: Sample) -> list[Stretch]:
    """The sample as text, cut where training begins and ends. Only whole characters are cut."""
    pairs = zip(sample.input_ids.tolist(), sample.labels.tolist(), strict=True)
    cut = [
        (trained, [i for i, _ in group])
        for trained, group in groupby(pairs, key=lambda pair: pair[1] != IGNORED)
    ]
    return [Stretch(text_of(tokenizer, ids), trained) for trained, ids in cut]


def expected_labels(family: Family, tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids where they lie within what an assistant turn says, else `IGNORED`."""
    pieces = token_bytes(tokenizer, ids)
    said = _said_in_bytes(family, b"".join(pieces).decode())
    ends = list(accumulate(map(len, pieces)))
    return [
        i if any(first <= end - len(piece) and end <= last for first, last in said) else IGNORED
        for i, piece, end in zip(ids, pieces, ends, strict=True)
    ]


def said_in(family: Family, text: str) -> list[str]:
    """What the assistant says in a rendered text, by the family's markers."""
    return re.findall(family.said, text, re.DOTALL)


def said_by(family: Family, row: Row) -> list[str]:
    """What the assistant says in a row, as the family writes it."""
    return [as_read_by(family, family.says(row.messages[i])) for i in row.assistant_turns]


def as_read_by(family: Family, text: str) -> str:
    """The text after the tokenizer's normalizer."""
    return unicodedata.normalize("NFC", text) if family.pieces == "qwen" else text


def _said_in_bytes(family: Family, text: str) -> list[tuple[int, int]]:
    spans = [match.span(1) for match in re.finditer(family.said, text, re.DOTALL)]
    return [(len(text[:first].encode()), len(text[:last].encode())) for first, last in spans]


@cache
def _bytes() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table): printable
    ones for themselves, the others for characters from 256 on, in their order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES: Final = _bytes()
