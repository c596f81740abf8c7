"""Whether a rendered conversation shows all that its row says, part after part, in order.

Templates drop what they don't know, and the words of the dropped part may stand elsewhere in the
conversation. So each part is looked for after the one before it, within its own turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from job.dataset.rows.row import Message


class Reader:
    """Reads a text from the left; remembers how far it has come."""

    def __init__(self, text: str, start: int = 0) -> None:
        self._text = text
        self._position = start

    def missing(self, message: Message, end: int) -> str | None:
        """The first part of `message` that doesn't follow before `end`; `None` if all do."""
        for part in _parts(message):
            if isinstance(part, str):
                if not self._find(part, end):
                    return part
            elif (lost := self._missing_value(part, end)) is not None:
                return lost
        return None

    def _find(self, text: str, end: int) -> bool:
        """Templates may trim a text, write it as JSON, or change its white space."""
        text = text.strip()
        for form in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]):
            place = self._text.find(form, self._position, end)
            if place >= 0:
                self._position = place + len(form)
                return True
        return self._find_spaced(text, end)

    def _find_spaced(self, text: str, end: int) -> bool:
        """The same, whatever the white space."""
        rest = self._text[self._position : end]
        letters, wanted = "".join(rest.split()), "".join(text.split())
        place = letters.find(wanted)
        if place < 0:
            return False
        if wanted:
            kept = [i for i, letter in enumerate(rest) if not letter.isspace()]
            self._position += kept[place + len(wanted) - 1] + 1
        return True

    def _missing_value(self, value: Any, end: int) -> str | None:
        """Arguments, as JSON in one piece or else piece by piece."""
        for form in (json.dumps(value, ensure_ascii=False), json.dumps(value)):
            place = self._text.find(form, self._position, end)
            if place >= 0:
                self._position = place + len(form)
                return None
        return next((leaf for leaf in _leaves(value) if not self._find(leaf, end)), None)


def _parts(message: Message) -> Iterator[Any]:
    """Text and names as they are; arguments as objects."""
    for key in ("reasoning_content", "content"):
        if message.get(key):
            yield message[key]
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        yield call["function"]["arguments"]


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value if isinstance(value, str) else json.dumps(value)
