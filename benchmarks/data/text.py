"""Pseudo-natural text: real words in the frequencies of real prompts, in random order.

The words come from the users' prompts of the Berkeley leaderboard, so that a tokenizer meets about
as many tokens a character as in real data. Numbers and names are mixed in, since they are what
differs most from row to row.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Final

WORDS: Final = 5000
"""Of the vocabulary, the most frequent ones."""
_CATEGORIES: Final = ("live_simple", "live_multiple", "live_irrelevance", "simple_python")
_WORD: Final = re.compile(r"[A-Za-z0-9.,'?!:;()$%-]{1,20}")
_NAMES: Final = (
    *("Amara Okafor", "Ben Carter", "Chloe Dubois", "Daniel Kim", "Elena Petrova", "Farid Haddad"),
    *("Grace Liu", "Hugo Martins", "Ivy Thompson", "Jonas Weber", "Kofi Mensah", "Leila Rahimi"),
    *("Mateo Vargas", "Nadia Rossi", "Oscar Lindgren", "Priya Sharma", "Tom Baker", "José Núñez"),
)
"""One is not ASCII: about one row in five has it."""
_EVERY: Final = 15
"""Words to a number or a name, on average."""


class Vocabulary:
    """Words and how often each comes."""

    def __init__(self, counted: Counter[str]) -> None:
        common = counted.most_common(WORDS)
        self.words = [word for word, _ in common]
        self.plain = [word.lower() for word in self.words if word.isalpha() and len(word) > 2]
        """Words that can stand in the name of a tool or an argument."""
        self._weights = list(accumulate(count for _, count in common))

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """Of the words in `texts`, punctuation attached as it stands there."""
        return cls(
            Counter(word for text in texts for word in text.split() if _WORD.fullmatch(word))
        )

    def text(self, chosen: random.Random, words: int) -> str:
        """So many words, and a full stop."""
        drawn = chosen.choices(self.words, cum_weights=self._weights, k=words)
        for place in range(chosen.randrange(_EVERY), words, _EVERY):
            drawn[place] = number(chosen) if chosen.random() < 0.85 else chosen.choice(_NAMES)
        return " ".join(drawn) + "."


def number(chosen: random.Random) -> str:
    return str(chosen.randrange(10 ** chosen.randint(1, 6)))


def prompts(leaderboard: Path) -> Iterator[str]:
    """What users asked, out of the leaderboard's data folder."""
    for category in _CATEGORIES:
        lines = (leaderboard / f"BFCL_v4_{category}.json").read_text(encoding="utf-8").splitlines()
        for line in lines:
            for turn in json.loads(line)["question"]:
                yield from (message["content"] for message in turn)
