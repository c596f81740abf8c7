"""The answers of an evaluation under way, kept where the next attempt finds them.

One object, `evaluation/answers.jsonl` of the run: a line that says what they depend on, and one for
each turn. Answers of other weights, prompts or limits are as good as none. Secrets are masked: an
answer that had one is kept with its score, which the next attempt could not find again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from job.dataset.rows.secrets import mask_secrets
from job.evaluation.calls import Score
from job.evaluation.document import Answer

_log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 30.0
"""So much of an evaluation may be lost to a kill without warning."""


class Keeper(Protocol):
    """Where the answers are kept between attempts."""

    def read(self) -> bytes | None:
        """What is kept; None for nothing."""
        ...

    def write(self, content: bytes) -> None:
        """Replace it. Whatever goes wrong is not the evaluation's concern; raises `Fenced`."""
        ...


class Nowhere:
    """Keeps nothing."""

    def read(self) -> bytes | None:
        return None

    def write(self, content: bytes) -> None:
        """Nothing to do."""


def key_of(*parts: object) -> str:
    """What answers depend on, as one value."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass
class Answers:
    """Base's and adapter's answers by the turn's number, and what they have cost so far."""

    key: str
    judge: Callable[[int, Answer], Score]
    """The score of an answer to the turn of a number."""
    base: dict[int, Answer] = field(default_factory=dict)
    adapter: dict[int, Answer] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    """Of earlier attempts."""
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    @classmethod
    def resumed(cls, key: str, keeper: Keeper, judge: Callable[[int, Answer], Score]) -> Answers:
        """Go on from what is kept, if it is of the same key."""
        found = cls(key, judge)
        content = keeper.read()
        if not content or not found._parse(content):
            return cls(key, judge)
        _log.info("%d held-out turns were answered by an earlier attempt", len(found.adapter))
        return found

    @property
    def seconds(self) -> float:
        """Spent on them, by all attempts."""
        return self.earlier_seconds + time.monotonic() - self._began

    def add(self, numbers: Sequence[int], base: list[Answer], adapter: list[Answer]) -> None:
        """The answers of a batch, of both models."""
        self.base.update(zip(numbers, base, strict=True))
        self.adapter.update(zip(numbers, adapter, strict=True))

    def save(self, keeper: Keeper, *, every: float = 0.0) -> None:
        """Keep them, if that was last done `every` seconds ago or longer."""
        if self.adapter and time.monotonic() - self._saved >= every:
            keeper.write(self._serialized())
            self._saved = time.monotonic()

    def _serialized(self) -> bytes:
        lines: list[dict[str, Any]] = [{"key": self.key, "seconds": self.seconds}]
        for number in sorted(self.base.keys() & self.adapter.keys()):
            models = {"base": self.base[number], "adapter": self.adapter[number]}
            kept = {model: self._kept(number, answer) for model, answer in models.items()}
            lines.append({"turn": number, **kept})
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    def _kept(self, number: int, answer: Answer) -> list[Any]:
        masked, score = mask_secrets(answer.text), answer.judged
        if score is None and masked != answer.text:
            score = self.judge(number, answer)
        return [masked, answer.cut_off, *([asdict(score)] if score else [])]

    def _parse(self, content: bytes) -> bool:
        """Take up what `_serialized` made of others, if they are of the same key."""
        try:
            head, *lines = [json.loads(line) for line in content.splitlines()]
            if head["key"] != self.key:
                _log.info("the answers of an earlier attempt are of other weights or prompts")
                return False
            self.earlier_seconds = float(head["seconds"])
            for line in lines:
                base, adapter = _answer(*line["base"]), _answer(*line["adapter"])
                self.add([int(line["turn"])], [base], [adapter])
        except (ValueError, TypeError, KeyError) as error:
            _log.warning("the answers of an earlier attempt can't be read: %s", error)
            return False
        return True


def _answer(text: str, cut_off: bool, score: dict[str, Any] | None = None) -> Answer:
    return Answer(text, cut_off, None if score is None else Score(**score))
