"""Keys that stand twice in one JSON object: parsers keep the last in silence, and differ in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from job.dataset.rows.hermes import no_constant
from job.dataset.rows.words import brief, path_of


class _Repeating(dict[str, Any]):
    """An object of which some keys were overwritten."""

    repeated: tuple[str, ...] = ()


def may_repeat(text: str, value: object) -> bool:
    """Whether `value`, which orjson read from `text`, may lack a key that stands in it.

    What was dropped takes its quotes with it, so there are fewer when `value` is written again.
    """
    try:
        written = orjson.dumps(value)
    except TypeError:  # nested deeper than orjson writes, or a whole number that it doesn't hold
        return True
    if text.count('"') != written.count(b'"'):
        return True
    # The one other way to write a quote would make up for a key that is missing.
    return "\\" in text and "\\u0022" in text


def repeated_keys(text: str) -> list[tuple[str, str]]:
    """Path of the object, and key, for each that stands more than once. `text` is JSON."""
    return list(find_repeated(DECODER.decode(text)))


def find_repeated(value: object) -> Iterator[tuple[str, str]]:
    """As `repeated_keys`, in what `DECODER` read."""
    pending: list[tuple[tuple[str | int, ...], object]] = [((), value)]
    while pending:
        keys, item = pending.pop()
        if isinstance(item, _Repeating):
            yield from ((path_of(keys), brief(key)) for key in item.repeated)
        if isinstance(item, dict):
            pending += [((*keys, key), child) for key, child in item.items()]
        elif isinstance(item, list):
            pending += [((*keys, i), child) for i, child in enumerate(item)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = _Repeating(found)
    counts = Counter(key for key, _ in pairs)
    marked.repeated = tuple(key for key, count in counts.items() if count > 1)
    return marked


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=no_constant)
"""Reads JSON so that `find_repeated` can tell which keys stood twice."""
