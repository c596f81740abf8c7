"""What a checkpoint carries beside the Trainer's own state, in `forge_progress.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

FILE_NAME = "forge_progress.json"


@dataclass(frozen=True)
class TrainingState:
    """Sums over all attempts up to a checkpoint, so that counters stay right after a resume."""

    tokens: int = 0
    """Non-padding tokens trained on."""
    supervised_tokens: int = 0
    """Tokens with a label."""
    samples: int = 0
    """Conversations, repeats in later epochs included."""
    train_seconds: float = 0.0
    """In optimizer steps that count, without evaluation and saving."""
    evaluation_pending: bool = False
    """The evaluation due at this step was not made yet; it comes before the next step."""
    finished: bool = False
    """Training is over (last step, or stopped early): what is left is to publish."""

    def plus(self, *, tokens: int, supervised_tokens: int, samples: int) -> TrainingState:
        return replace(
            self,
            tokens=self.tokens + tokens,
            supervised_tokens=self.supervised_tokens + supervised_tokens,
            samples=self.samples + samples,
        )

    def save(self, folder: Path) -> None:
        (folder / FILE_NAME).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TrainingState:
        """Of a checkpoint folder; zeros for one that another program wrote."""
        path = folder / FILE_NAME
        if not path.exists():
            return cls()
        known = cls.__dataclass_fields__
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{name: value for name, value in values.items() if name in known})
