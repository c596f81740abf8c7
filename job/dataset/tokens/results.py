"""Tool answers as a template takes them: Hermes rows write `<tool_response>` tags around each,
which some templates add by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from job.dataset.rows.row import Message, Row, RowRefused

_OPENS: Final = "<tool_response>"
_RESPONSE: Final = re.compile(r"\s*<tool_response>(.*?)</tool_response>\s*", re.DOTALL)


def bare_results(messages: Sequence[Message]) -> list[Message]:
    """The messages with no tags around tool answers, and a tool turn for each of them."""
    return [turn for message in messages for turn in _bare(message)]


def bare_row(row: Row) -> Row:
    """The row with such messages; itself where it has no tags."""
    if not any(map(_is_tagged, row.messages)):
        return row
    return replace(row, messages=tuple(bare_results(row.messages)))


def in_terms_of(row: Row, refusal: RowRefused) -> RowRefused:
    """What was refused of `bare_row(row)`, with the place that the turn has in `row`."""
    found = re.match(r"messages\[(\d+)\]", refusal.problem.path)
    if found is None:
        return refusal
    origins = [i for i, turn in enumerate(row.messages) for _ in _bare(turn)]
    path = f"messages[{origins[int(found[1])]}]" + refusal.problem.path[found.end() :]
    return RowRefused(path, refusal.problem.reason, refusal.problem.hint)


def _is_tagged(message: Message) -> bool:
    return message["role"] == "tool" and str(message["content"]).lstrip().startswith(_OPENS)


def _bare(message: Message) -> list[Message]:
    if not _is_tagged(message):
        return [message]
    answers, end = [], 0
    while found := _RESPONSE.match(message["content"], end):
        answers.append(found[1].strip())
        end = found.end()
    # Anything beside the tags, or an id that names one call: the turn is left as it is.
    if end < len(message["content"]) or (len(answers) > 1 and "tool_call_id" in message):
        return [message]
    return [message | {"content": answer} for answer in answers]
