"""Kinds of values that many settings have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from job import validators as values

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.split_names)]
PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
