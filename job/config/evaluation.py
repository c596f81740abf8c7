"""What is held out, how it is judged, and what the adapter has to reach."""

from __future__ import annotations

from pydantic import Field

from job.choices import GateOn, Promote, TextMatch
from job.config.kinds import PositiveInt
from job.config.training import TrainingSettings


class EvaluationSettings(TrainingSettings):
    """Held-out rows, early stopping and the promotion gate."""

    eval_fraction: float = Field(
        0.2, ge=0, lt=1, description="share of rows held out, stable under re-ordering and growth"
    )
    eval_max_rows: PositiveInt = Field(512, description="most held-out rows that are evaluated")
    eval_max_seconds: float = Field(
        0,
        ge=0,
        allow_inf_nan=False,
        description="time limit of the evaluation after training; 0: none",
    )
    eval_text_match: TextMatch = Field(
        "off", description="how the text of held-out turns without a call is compared"
    )
    eval_steps: PositiveInt = Field(50, description="steps between validation losses")
    eval_generate_every: int = Field(
        0, ge=0, description="every so many validations also generate and judge answers; 0: none"
    )
    eval_generate_rows: PositiveInt = Field(
        64, description="held-out rows answered at such a validation, by the adapter only"
    )
    early_stopping_patience: int = Field(
        3,
        ge=0,
        description="validations without a better loss before training stops; 0: no early stop",
    )
    gate_min_exact: float | None = Field(
        None,
        ge=0,
        le=1,
        description="promotion gate: minimum share of exactly right held-out calls",
    )
    gate_min_gain: float | None = Field(
        None, ge=-1, le=1, description="promotion gate: minimum gain of that share over the base"
    )
    gate_on: GateOn = Field(
        "rate",
        description="what the gate is compared with: the rates, or the lower ends of their "
        "95% intervals (`lower_bound`)",
    )
    promote: Promote = Field(
        "newest",
        description="after a passed gate `promoted.json` names the newest run, the `best` of those "
        "judged by the same held-out turns, or is left alone",
    )
