"""What a changed field of the fingerprint means for a run that has checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from job.errors import FingerprintMismatch, Problem

_MAY_DIFFER = ("versions.", "provenance.")
_LOADS_NO_MORE = {
    "lora.r": "the checkpoints' matrices have the old rank: no other can take them up",
    "optim": "the checkpoints hold the old optimizer's state: no other can take it up",
}
"""No acceptance helps: a resume would fail, after the model was loaded."""
_SAME_STATE = {"adamw_8bit", "paged_adamw_8bit"}
"""Optimizers that load each other's."""
_OF_VALIDATION = (
    "data",
    "rows",
    "split",
    "loss_on",
    "invalid_rows",
    "overlong_rows",
    "max_seq_length",
    "model_family",
    "model_revision",
    "template_sha256",
    "lora.alpha",
)
"""What a validation loss is of: with another, losses before and after can't be held together."""
_NEEDS_NO_STEP = (
    "world_size",
    "effective_batch_size",
    "dataset_uri",
    "max_steps",
    "num_train_epochs",
    "model",
    "engine",
    "precision",
)
"""Holds also where nothing is left to train: where things lie, who works, how long."""

OLD_VALUES_OR_NEW_RUN = "use the old values, or another FORGE_RUN_ID for a new run"
"""The remedy that always works."""


@dataclass(frozen=True)
class Difference:
    """A field that isn't what the record says."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name}: was {self.before!r}, is now {self.after!r}"

    @property
    def needs_acceptance(self) -> bool:
        """Library versions and the like may differ anyway."""
        return not self.name.startswith(_MAY_DIFFER)

    @property
    def problem(self) -> Problem:
        why = "" if self.loads else _LOADS_NO_MORE[self.name]
        return Problem(self.name, f"was {self.before!r}, is now {self.after!r}", why)

    @property
    def loads(self) -> bool:
        """Whether a checkpoint from before can be taken up with it."""
        if self.name == "optim" and {self.before, self.after} <= _SAME_STATE:
            return True
        return self.name not in _LOADS_NO_MORE

    @property
    def _is_a_place(self) -> bool:
        return self.name.startswith("data.") and self.name.endswith(".uri")

    @property
    def touches_validation(self) -> bool:
        return not self._is_a_place and covers(_OF_VALIDATION, self.name)

    @property
    def needs_a_step(self) -> bool:
        """Only training can take it up."""
        return self.needs_acceptance and not self._is_a_place and self.name not in _NEEDS_NO_STEP


def refuse_too_late(differences: Sequence[Difference], step: int) -> None:
    """Raise `FingerprintMismatch` for what nothing is left to take up, as training is over."""
    late = [found for found in differences if found.needs_a_step]
    if late:
        remedy = f"training was over at step {step}: {OLD_VALUES_OR_NEW_RUN}"
        raise FingerprintMismatch([found.problem for found in late], remedy)


def covers(fields: Iterable[str], name: str) -> bool:
    """Whether `name` is one of `fields`, or below one."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)
