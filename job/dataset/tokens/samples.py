"""What the data stage makes of conversations: text with trained spans, token ids with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

IGNORED: Final = -100
"""The label that no loss is computed on, as in PyTorch."""

Ids: TypeAlias = npt.NDArray[np.int32]
Positions: TypeAlias = npt.NDArray[np.int64]
Span: TypeAlias = tuple[int, int]
"""First character and the one after the last."""

NO_IDS: Final[Ids] = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the model reads it."""

    text: str
    spans: tuple[Span, ...]
    """What each assistant turn says, its end-of-turn token included; in order, disjoint."""
    begun: str = ""
    """With what the template has an answer begin when it serves, where an answer here doesn't."""


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
            np.concatenate([NO_IDS, *(sample.input_ids for sample in samples)]),
            np.concatenate([NO_IDS, *(sample.labels for sample in samples)]),
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
