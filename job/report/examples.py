"""Examples side by side: calls laid out, and what an answer has that the expected one lacks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any, Final

from markupsafe import Markup, escape

_MOST: Final = 4000
"""Characters of one text."""
_CALL: Final = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_WORD: Final = re.compile(r"\w+|\s+|[^\w\s]")
_MOST_WORDS: Final = 1500
"""Comparing longer texts would take seconds."""


def view(example: Mapping[str, Any]) -> dict[str, Any]:
    """What the page takes of an example."""
    expected = _laid_out(example.get("expected"))
    sides = [("prompt", escape(_text(example.get("prompt")))), ("expected", escape(expected))]
    answers = ((name, _laid_out(example.get(name))) for name in ("base", "adapter"))
    sides += [(name, _marked(answer, expected)) for name, answer in answers]
    return {
        "right": example.get("right"),
        "about": [str(example[k])[:100] for k in ("tool", "scenario") if example.get(k)],
        "sides": sides,
    }


def _text(value: Any) -> str:
    text = "–" if value is None else value if isinstance(value, str) else str(value)
    return text if len(text) <= _MOST else f"{text[:_MOST]} …"


def _laid_out(value: Any) -> str:
    """JSON with a line for each value: the whole text, or the calls in it."""
    text = _text(value)
    return _pretty(text) or _CALL.sub(_call_laid_out, text)


def _call_laid_out(found: re.Match[str]) -> str:
    call = found[1].strip()
    return f"<tool_call>\n{_pretty(call) or call}\n</tool_call>"


def _pretty(text: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict | list):
        return None
    return json.dumps(found, indent=2, ensure_ascii=False)


def _marked(text: str, expected: str) -> Markup:
    """`text` as HTML, what differs from `expected` in `<mark>`."""
    words, others = _WORD.findall(text), _WORD.findall(expected)
    if text == expected or len(words) > _MOST_WORDS or len(others) > _MOST_WORDS:
        return escape(text)
    parts = []
    for kind, _, _, start, end in SequenceMatcher(None, others, words, False).get_opcodes():
        piece = escape("".join(words[start:end]))
        if piece:
            parts.append(piece if kind == "equal" else Markup("<mark>{}</mark>").format(piece))
    return Markup("").join(parts)
