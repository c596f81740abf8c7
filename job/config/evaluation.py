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
    eval_max_rows: PositiveInt = Field(512, description="held-out rows evaluated at most")
    eval_max_seconds: float = Field(
        0, ge=0, allow_inf_nan=False, description="time to judge them in after training; 0: no end"
    )
    eval_text_match: TextMatch = Field(
        "off", description="how the text of held-out turns without a call is compared"
    )
    eval_steps: PositiveInt = Field(50, description="steps between validation losses")
    eval_generate_every: int = Field(
        0, ge=0, description="validations from one that also generates to the next; 0: none does"
    )
    eval_generate_rows: PositiveInt = Field(
        64, description="held-out rows generated then, with the adapter only"
    )
    early_stopping_patience: int = Field(
        3, ge=0, description="evaluations without a better validation loss before it ends; 0: never"
    )
    gate_min_exact: float | None = Field(
        None, ge=0, le=1, description="promotion gate: least share of exactly right held-out calls"
    )
    gate_min_gain: float | None = Field(
        None, ge=-1, le=1, description="promotion gate: least gain of that share over the base"
    )
    gate_on: GateOn = Field(
        "rate", description="held against the rates, or against the lower ends of their intervals"
    )
    promote: Promote = Field(
        "newest",
        description="after a passed gate `promoted.json` names the newest run, the `best` of those "
        "judged by the same held-out turns, or is left alone",
    )
