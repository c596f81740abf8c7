"""The settings that decide what becomes of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from job.choices import InvalidRows, LossOn, OverlongRows
from job.config import Settings

_RAISE: Final = "raise FORGE_MAX_SEQ_LENGTH"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Their names are those in `Settings`, which has their defaults."""

    max_seq_length: int
    loss_on: LossOn
    invalid_rows: InvalidRows
    max_invalid_fraction: float
    overlong_rows: OverlongRows
    min_supervised_ratio: float
    eval_fraction: float
    eval_max_rows: int
    by_positions: bool = False
    """`max_seq_length` is the model's own limit, smaller than the setting."""

    @property
    def length_limit(self) -> str:
        """What limits the length, for people."""
        if self.by_positions:
            return f"the model has {self.max_seq_length} positions"
        return f"FORGE_MAX_SEQ_LENGTH is {self.max_seq_length}"

    @property
    def more_room(self) -> str:
        """How rows get more room, for people."""
        return "take a model with more positions" if self.by_positions else _RAISE

    @classmethod
    def from_settings(cls, settings: Settings, position_limit: int | None = None) -> PrepareOptions:
        """`position_limit` is the model's own: nothing longer can be trained on as it is."""
        wanted = settings.hyperparameters().max_seq_length
        limit = min(wanted, position_limit or wanted)
        return cls(
            max_seq_length=limit,
            by_positions=limit < wanted,
            loss_on=settings.loss_on,
            invalid_rows=settings.invalid_rows,
            max_invalid_fraction=settings.max_invalid_fraction,
            overlong_rows=settings.overlong_rows,
            min_supervised_ratio=settings.min_supervised_ratio,
            eval_fraction=settings.eval_fraction,
            eval_max_rows=settings.eval_max_rows,
        )
