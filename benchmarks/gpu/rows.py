"""Conversations with lengths as tool calling has them: most are short, some fill the context."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Final

MEDIAN_CHARACTERS: Final = 1800
SPREAD: Final = 0.8
"""Of the logarithm: nine in ten lie between a quarter of the median and four times of it."""
LONGEST_ANSWER: Final = 200
"""Characters. A model of random weights ends no answer by itself: it writes as many tokens as half
more than the longest held-out one has."""

_WORDS: Final = ("weather", "station", "ticket", "room", "invoice", "address", "summary", "total")


def write(path: Path, count: int, longest: int, seed: int = 0) -> Path:
    """Hermes conversations of two rounds; `longest` is in characters."""
    chosen = random.Random(seed)  # noqa: S311
    lines = [json.dumps(_row(number, chosen, longest)) for number in range(count)]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def _row(number: int, chosen: random.Random, longest: int) -> dict[str, Any]:
    size = min(longest, round(chosen.lognormvariate(0, SPREAD) * MEDIAN_CHARACTERS))
    tool = {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks something up.",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}}},
        },
    }
    query = f"{_text(chosen, 40)} {number}"
    call = {"name": "look_up", "arguments": {"query": query}}
    answer = min(size // 4, LONGEST_ANSWER)
    found = {"found": _text(chosen, 3 * size // 4 - answer)}
    return {
        "messages": [
            {"role": "system", "content": f"Use the tools. <tools>\n{json.dumps(tool)}\n</tools>"},
            {"role": "user", "content": f"Please look up {query}."},
            {"role": "assistant", "content": f"<tool_call>\n{json.dumps(call)}\n</tool_call>"},
            # Without tags: the template adds them, and only the job knows whether they are there.
            {"role": "tool", "content": json.dumps(found)},
            {"role": "assistant", "content": _text(chosen, answer)},
        ]
    }


def _text(chosen: random.Random, characters: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) + len(words) < characters:
        words.append(chosen.choice(_WORDS))
    return " ".join(words)
