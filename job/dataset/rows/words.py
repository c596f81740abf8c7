"""How errors describe values of the data: by kind, cut short, without secrets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from job.dataset.rows.secrets import mask_secrets

_LONGEST: Final = 60
"""Characters of a value that are shown; the rest is in the file."""

_KINDS: Final = {
    str: "a string",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def kind(value: object) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return _KINDS[type(value)]


def shown(value: Any) -> str:
    """A value as JSON, masked and cut."""
    if isinstance(value, str):
        # Masked before it is cut: half a secret would not be known for one.
        return f'"{brief(value)}"'
    try:
        return brief(orjson.dumps(value).decode())
    except TypeError:  # a whole number beyond 64 bits, or deeper than orjson writes
        return brief(repr(value)) if isinstance(value, int) else kind(value)


def brief(text: str, longest: int = _LONGEST) -> str:
    """`text` on one line, masked and cut."""
    # What is far beyond the cut can't be part of a secret that reaches into what is shown.
    text = mask_secrets(text[: 20 * longest])
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * longest]).split())
    return text if len(text) <= longest else text[:longest] + "…"


def path_of(keys: Sequence[str | int]) -> str:
    """Keys and indices as a JSON path to append: `.city[0]["a b"]`."""
    parts = []
    for key in keys:
        if isinstance(key, int):
            parts.append(f"[{key}]")
        elif key.isidentifier():
            parts.append(f".{brief(key)}")
        else:
            parts.append(f"[{shown(key)}]")
    return "".join(parts)
