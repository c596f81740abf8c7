"""What makes a line worth a closer look: decided for many lines at once, and then for one.

Keys that stand twice, control characters, U+FFFD, things that look like keys and passwords: none of
them is in most lines, so a few passes at gigabytes a second over their bytes clear them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import orjson
from jsonschema_rs import Draft202012Validator, RegexOptions

from job.dataset.rows.draft import Draft
from job.dataset.rows.hermes import Malformed, call_blocks, parse_call
from job.dataset.rows.repeats import may_repeat, repeated_keys
from job.dataset.rows.row import Problems
from job.dataset.rows.secrets import MARKS, find_secrets, lacking
from job.dataset.rows.tools import ONCE

_ESCAPES: Final = r"\\u00(?:0[0-8bBcCeEfF]|1|7[fF]|22)|\\[bf]|\x{FFFD}|\\u[fF]{3}[dD]"
"""Control characters and U+FFFD, as JSON text may have them; and the one other way to write a
quote, which would make up for a key that is missing."""

_CLEAR: Final = Draft202012Validator(
    # Two searches: as one, the engine would drop what makes each of them fast.
    {"allOf": [lacking(_ESCAPES), lacking(MARKS)]},
    pattern_options=RegexOptions(),
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_QUOTE: Final = ord('"')


def nothing_odd(lines: Sequence[bytes], values: Sequence[object]) -> bool:
    """Whether `examine` has nothing to say of these lines, whose parsed JSON is `values`."""
    raw = b"\n".join(lines)
    try:
        written = b"\n".join(map(orjson.dumps, values))
    except TypeError:  # nested deeper than orjson writes
        return False
    # A key that stood twice took its quotes with it.
    same = _quotes(raw) == _quotes(written)
    return same and b"\x7f" not in raw and _CLEAR.is_valid(raw.decode())


def examine(line: bytes, value: object, draft: Draft, found: Problems) -> None:
    """Tell what is odd about one line, which is UTF-8."""
    text = line.decode()
    for path, key in repeated_keys(text) if may_repeat(text, value) else ():
        found.add(path.removeprefix("."), f"the key '{key}' stands twice in one object", ONCE)
    for index, message in enumerate(draft.messages):
        for path, text in _texts(index, message, draft):
            _characters(path, text, message["role"] == "tool", found)
    for text in _strings(draft.toolbox.form):
        _characters("tools", text, False, found)
    if find_secrets(line):
        _secrets(value, found)


def too_nested(value: object) -> bool:
    """Whether parsed JSON is nested deeper than orjson writes."""
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


def _quotes(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _QUOTE))


def _texts(index: int, message: dict[str, Any], draft: Draft) -> Iterator[tuple[str, str]]:
    """All text of a turn that the model may read, with its path."""
    places = draft.places
    for n, call in enumerate(message.get("tool_calls", ())):
        for text in _strings(call["function"]["arguments"]):
            yield places.arguments(index, n), text
        yield places.call(index, n), call["function"]["name"]
    if message["content"]:
        yield places.text(index), message["content"]
    if message["role"] == "assistant":
        for call in map(parse_call, _blocks(message["content"] or "")):
            if not isinstance(call, Malformed):
                yield from ((places.text(index), text) for text in _strings(call.arguments))
    for key in ("reasoning_content", "name", "tool_call_id"):
        if key in message:
            yield f"{places.turn(index)}.{key}", message[key]


def _blocks(text: str) -> list[str]:
    return [block for block in call_blocks(text) if isinstance(block, str)]


def _strings(value: object) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item


def _characters(path: str, text: str, from_tool: bool, found: Problems) -> None:
    control = _CONTROL.search(text)
    if control is not None and control[0] == "\0":
        found.add(path, "holds a NUL character", "the text was damaged on its way here")
    elif control is not None:
        reason = f"holds the control character U+{ord(control[0]):04X} at {control.start() + 1}"
        if from_tool:  # programs color their output
            found.warn(path, reason, "take it out if it was not meant to be learned from")
        else:
            found.add(path, reason, "take it out")
    if "\ufffd" in text:
        hint = "the text was decoded wrongly before it came here"
        found.warn(path, "holds U+FFFD, the sign for a character that could not be read", hint)


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # whole numbers that orjson doesn't hold
        return json.dumps(value, ensure_ascii=False).encode()


def _secrets(value: object, found: Problems) -> None:
    """Where in the row something looks like a secret."""
    parts: list[tuple[str, object]] = []
    for key, item in value.items() if isinstance(value, dict) else ():
        if key in ("messages", "conversations") and isinstance(item, list):
            parts += [(f"{key}[{index}]", turn) for index, turn in enumerate(item)]
        else:
            parts.append((key, item))
    for path, part in parts:
        for kind in find_secrets(_json(part)):
            found.warn(path, f"holds what looks like a secret: {kind}", "take it out and revoke it")
