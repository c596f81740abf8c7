"""Text in Markdown that stays text: names come from data and people, and a hub renders the card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

_SPECIAL: Final = re.compile(r"([\\`*\[\]|#~$])")
_SCORE: Final = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""Inside of words, as in `lora_r`, an underscore is no markup (CommonMark 6.2)."""
_LINK: Final = re.compile(r"\b(https?|ftp)://|\bwww\.")
"""What GitHub's dialect makes a link of by itself."""
_BREAKS: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LONGEST: Final = 300
"""Characters of a value: a card is read, `run.json` has the whole."""


def one_line(value: Any) -> str:
    """Without line breaks or control characters, and cut where it is very long."""
    text = _BREAKS.sub(" ", str(value)).strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def plain(value: Any) -> str:
    """As running text or a cell of a table: nothing in it is markup, HTML or a link."""
    # `&` goes first, so that what looks like an entity is shown as it is.
    text = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SCORE.sub(r"\\_", _SPECIAL.sub(r"\\\1", text))
    return _LINK.sub(_unlinked, text)


def _unlinked(found: re.Match[str]) -> str:
    return found[0].replace("://", ":&#47;&#47;").replace("www.", "www&#46;")


def code(value: Any) -> str:
    """As a code span, fenced by more backticks than it holds in a row (CommonMark 6.1)."""
    text = one_line(value)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def table(columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """A table and the blank line after it; nothing where there are no rows."""
    lines = ["| " + " | ".join(map(plain, row)) + " |" for row in rows]
    if not lines:
        return []
    head = "| " + " | ".join(columns) + " |"
    return [head, "|" + "---|" * len(columns), *lines, ""]


def pairs(columns: tuple[str, str], values: Mapping[str, Any]) -> list[str]:
    return table(columns, values.items())
