"""Assistant turns as they are judged: each once, however often the data hold it.

A turn that is answered twice tells no more of a model, but makes its intervals narrower.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from job.dataset.rows.row import Message, Row


def distinct_turns(rows: Iterable[Row]) -> Iterator[tuple[Row, int]]:
    """Row, and index in its messages, of every assistant turn that no earlier one equals: in tools,
    in what comes before it, and in what is expected."""
    seen: set[bytes] = set()
    for row in rows:
        so_far = hashlib.sha256(_canonical(row.tools))
        for index, message in enumerate(row.messages):
            so_far.update(_canonical(_without_ids(message)))
            if message["role"] == "assistant" and (turn := so_far.digest()) not in seen:
                seen.add(turn)
                yield row, index


def _without_ids(message: Message) -> Message:
    """Those of calls are drawn, and mean nothing but which answer is whose."""
    left = {name: value for name, value in message.items() if name != "tool_call_id"}
    if calls := message.get("tool_calls"):
        left["tool_calls"] = [{k: v for k, v in call.items() if k != "id"} for call in calls]
    return left


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\0"
