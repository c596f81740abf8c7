"""Values that settings may have, for modules that name them too. Nothing is imported, so that a
command that only reads records does not have to load the settings."""

from __future__ import annotations

from typing import Literal, TypeAlias

GateOn: TypeAlias = Literal["rate", "lower_bound"]
"""What the gate's thresholds are compared with: the rates, or the lower ends of their 95%
intervals."""

Promote: TypeAlias = Literal["newest", "best", "never"]
"""Which of the runs below one output is named in its `promoted.json`."""

TextMatch: TypeAlias = Literal["off", "exact", "normalized"]
"""How the text of turns that expect no call is compared with what was expected."""

LossOn: TypeAlias = Literal["assistant", "all"]
"""Which tokens of a conversation are trained: those of its assistant turns, or all."""

InvalidRows: TypeAlias = Literal["fail", "skip"]
"""What a row that fails a check does: end the run, or be left out and reported."""

OverlongRows: TypeAlias = Literal["drop", "trim_turns", "fail"]
"""What becomes of a conversation with more tokens than the sequence length."""
