"""What the card tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from job.families.licence import Licence
from job.model_name import ModelName

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Everything that the card is made of."""

    run_uri: str
    base_model: str
    revision: str
    """The commit on a hub, or a hash over the model's files."""
    step: int
    settings: Mapping[str, Any]
    """Hyperparameters by name."""
    data: Mapping[str, Any]
    """The data report, as in `dataset/report.json`."""
    fingerprint: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None
    attempts: int
    gate: str = "not set"
    """The verdict, as in `run.json`."""
    licence: Licence | None = None
    """Of the base model; None where nobody says."""
    tool_call_parser: str = "hermes"
    """vLLM's name for how the trained calls are written."""
    reasoning_parser: str | None = None
    """vLLM's name for how thinking is written, where the family thinks."""
    curve: bytes | None = None
    """The loss curve as SVG; None where none was drawn."""

    @property
    def name(self) -> str:
        """The run's id: the last part of its address."""
        return self.run_uri.rstrip("/").rpartition("/")[2]

    def merged_into(self, base_model: str) -> CardFacts:
        """The same of weights that were merged into another base than the trained one."""
        named = ModelName.parse(base_model)
        return replace(self, base_model=named.name, revision=named.revision or "")


def hub_name(base_model: str, revision: str) -> tuple[str, str]:
    """What a hub calls the model, and the commit; a path or an S3 prefix has none."""
    named = ModelName.parse(base_model)
    return named.name, revision if named.kind == "hub" else ""


def is_hub_id(name: str) -> bool:
    """Whether hubs take it for `base_model`: they refuse a card that names anything else there."""
    return _HUB_ID.fullmatch(name) is not None
