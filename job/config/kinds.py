"""Kinds of values that many settings have."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from job import values

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.split_names)]
PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

GateOn: TypeAlias = Literal["rate", "lower_bound"]
"""What the gate's thresholds are held against: the rates, or the lower ends of their 95%
intervals."""

Promote: TypeAlias = Literal["newest", "best", "never"]
"""Which of the runs below one output is named in its `promoted.json`."""

TextMatch: TypeAlias = Literal["off", "exact", "normalized"]
"""How the text of turns that expect no call is compared with what was expected."""
