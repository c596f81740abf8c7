"""The base model's licence: from its own card, else the family's for its default model.

Never guessed: a model that says nothing, and is not the family's own, has none that we know of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from job.families import ModelFamily
from job.model_name import ModelName

CARD_NAME: Final = "README.md"
_BLOCK: Final = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---\s*(\r?\n|\Z)", re.DOTALL)
_NOTHING: Final = ("null", "Null", "NULL", "~")
"""As YAML writes it."""
_LARGEST: Final = 1 << 20
"""Bytes of a card that are looked at."""


@dataclass(frozen=True)
class Licence:
    """Under which terms the base model may be used."""

    id: str
    """As hubs write it: `apache-2.0`, `mit`, `llama3.1`, `other`."""
    name: str | None = None
    """What `other` stands for."""
    link: str | None = None
    source: str = "the base model's card"
    """Who says so."""
    note: str = ""
    """What it asks of those who share an adapter."""


def of_model(folder: Path, base_model: str, family: ModelFamily) -> Licence | None:
    """The licence of the model in `folder`, which `FORGE_MODEL` calls `base_model`."""
    found = _from_card(folder / CARD_NAME)
    if found is not None:
        return found
    if ModelName.parse(base_model).name != family.base_model or family.licence is None:
        return None
    return Licence(family.licence, source="the publisher of this model", note=family.licence_note)


def _from_card(card: Path) -> Licence | None:
    try:
        with card.open("rb") as file:
            text = file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return None
    block = _BLOCK.match(text)
    try:
        # All values as text: others would have to be sound, and a card may have a date of any kind.
        fields = yaml.load(block[1], yaml.BaseLoader) if block else None  # noqa: S506
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(fields, dict) or not (found := _words(fields.get("license"))):
        return None
    return Licence(found, _words(fields.get("license_name")), _words(fields.get("license_link")))


def _words(value: Any) -> str | None:
    """One line of text. A card may list several licences."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if not isinstance(value, str) or value in _NOTHING:
        return None
    return " ".join(value.split())[:200] or None
