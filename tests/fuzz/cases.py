"""One input of the data stage: a few small files, the options, the model family. Made from a seed
and a number, or read from where a finding was kept."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import zstandard

from job.dataset import PrepareOptions
from tests.dataset.preparing import options
from tests.dataset.standin import chat_row
from tests.dataset.standin_families import FAMILIES, MOVES_TOOLS, R1_WITH_TOOL_TOKENS, Family
from tests.fuzz.mutations import Mutator
from tests.fuzz.seeds import good_rows, malformed_lines

MODELS: Final[dict[str, Family]] = FAMILIES | {
    "moves-tools": MOVES_TOOLS,
    "r1-tool-tokens": R1_WITH_TOOL_TOKENS,
}
TOKENS: Final = tuple(
    sorted({token for family in MODELS.values() for token in family.special + family.plain})
)
_SUFFIXES: Final = (".jsonl", ".jsonl", ".jsonl.gz", ".jsonl.zst")
_HARMS: Final = ("cut", "flip", "append")


@dataclass(frozen=True)
class Part:
    """One data file."""

    lines: tuple[bytes, ...]
    suffix: str = ".jsonl"
    end: bytes = b"\n"
    """Of each line but the last."""
    harm: str = ""
    """What was done to the bytes of the file as a whole: one of `_HARMS`."""
    at: float = 0.0
    """Where it was done, as a fraction of the file."""

    def plain(self) -> bytes:
        """What was packed into the file."""
        return self.end.join(self.lines)

    def packed(self) -> bytes:
        """The file's bytes."""
        plain = self.plain()
        half = len(plain) // 2
        if self.suffix.endswith(".gz"):
            # Two streams one after another are as good as one.
            plain = b"".join(
                gzip.compress(piece, mtime=0) for piece in (plain[:half], plain[half:])
            )
        elif self.suffix.endswith(".zst"):
            pack = zstandard.ZstdCompressor(write_checksum=True).compress
            plain = b"".join(pack(piece) for piece in (plain[:half], plain[half:]))
        return self._harmed(plain)

    def _harmed(self, data: bytes) -> bytes:
        at = min(int(self.at * len(data)), max(len(data) - 1, 0))
        match self.harm:
            case "cut":
                return data[:at]
            case "flip" if data:
                return data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]
            case "append":
                return data + data[:at]
        return data


@dataclass(frozen=True)
class Case:
    """An input. `made` always makes the same one of the same seed and number."""

    parts: tuple[Part, ...]
    model: str = "qwen2.5"
    options: dict[str, Any] = field(default_factory=dict)
    """Of `PrepareOptions`, those that differ from `_OPTIONS`."""

    @classmethod
    def made(cls, seed: int, number: int) -> Case:
        rng = random.Random(f"{seed}/{number}")
        model = rng.choice(sorted(MODELS))
        # The tokens of other models are text like any other.
        tokens = TOKENS if rng.random() < 0.3 else MODELS[model].special + MODELS[model].plain
        mutator = Mutator(rng, tokens)
        parts = tuple(_part(rng, mutator) for _ in range(rng.choice((1, 1, 2))))
        # With some that are surely good the stage reaches its end.
        plain = [chat_row(f"question {n}", f"answer {n}") for n in range(rng.choice((1, 2, 5)))]
        lines = tuple(json.dumps(row).encode() for row in plain)
        parts = (*parts[:-1], replace(parts[-1], lines=parts[-1].lines + lines))
        return cls(parts, model, _options(rng))

    def prepare_options(self) -> PrepareOptions:
        return options(**(_OPTIONS | self.options))

    def to_json(self) -> str:
        parts = [asdict(part) for part in self.parts]
        for part in parts:
            part["lines"] = [line.decode("latin-1") for line in part["lines"]]
            part["end"] = part["end"].decode("latin-1")
        return json.dumps({"model": self.model, "options": self.options, "parts": parts}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Bytes are written as the characters of Latin-1."""
        value = json.loads(text)
        for part in value["parts"]:
            part["lines"] = tuple(line.encode("latin-1") for line in part["lines"])
            part["end"] = part["end"].encode("latin-1")
        return cls(tuple(Part(**part) for part in value.pop("parts")), **value)


_OPTIONS: Final[dict[str, Any]] = {
    "max_seq_length": 4096,
    "invalid_rows": "skip",
    "max_invalid_fraction": 1.0,
    "min_supervised_ratio": 0.0,
    "eval_fraction": 0.2,
}


def _options(rng: random.Random) -> dict[str, Any]:
    return {name: rng.choice(some) for name, (share, some) in _WAYS.items() if rng.random() < share}


_WAYS: Final[dict[str, tuple[float, tuple[Any, ...]]]] = {
    "max_seq_length": (0.4, (30, 100, 200, 400, 1_000_000)),
    "loss_on": (0.1, ("all",)),
    "invalid_rows": (0.1, ("fail",)),
    "max_invalid_fraction": (0.1, (0.0, 0.3)),
    "overlong_rows": (0.4, ("trim_turns", "trim_turns", "trim_turns", "fail")),
    "min_supervised_ratio": (0.05, (0.2,)),
    "eval_fraction": (0.3, (0.0, 0.5, 0.95)),
    "eval_max_rows": (0.1, (1,)),
}
"""Option → how often it isn't the default, and what it is then."""


def _part(rng: random.Random, mutator: Mutator) -> Part:
    lines = tuple(_line(rng, mutator) for _ in range(rng.choice((1, 3, 6, 10))))
    harm = rng.choice(_HARMS) if rng.random() < 0.1 else ""
    end = b"\r\n" if rng.random() < 0.1 else b"\n"
    return Part(lines, rng.choice(_SUFFIXES), end, harm, round(rng.random(), 3) if harm else 0.0)


def _line(rng: random.Random, mutator: Mutator) -> bytes:
    row, donor = rng.choice(good_rows()), rng.choice(good_rows())
    changes = rng.choice((1, 1, 2, 3, 6))
    way = rng.random()
    if way < 0.1:
        return mutator.line(row)
    if way < 0.4:
        return mutator.line(mutator.texts(row, changes))
    if way < 0.5:
        return mutator.line(mutator.schemas(row, changes))
    if way < 0.8:
        return mutator.line(mutator.row(row, donor, changes))
    if way < 0.85:
        return rng.choice(malformed_lines())
    line = rng.choice((*malformed_lines(), *[mutator.line(row)] * 100))
    for _ in range(changes):
        line = mutator.bytes(line, mutator.line(donor))
    return line
