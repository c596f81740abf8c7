"""The plainest way to a row's tokens: parse the line, render it once with transformers' renderer,
encode the whole text with the tokenizers library. The floor that the job is measured against, and
what its ids must be equal to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

import orjson
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

BATCH: Final = 1000
"""Rows that are encoded at a time."""


class Plain:
    """A model's template and tokenizer, without any check."""

    def __init__(self, model: Path) -> None:
        self._template = (model / "chat_template.jinja").read_text(encoding="utf-8")
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def ids(self, lines: Sequence[bytes]) -> list[list[int]]:
        """Of each line, a row of JSON."""
        texts = self._texts([orjson.loads(line) for line in lines])
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _texts(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        for row in rows:
            _parse_arguments(row["messages"])
        # Its renderer takes one list of tools for many conversations.
        groups = (list(group) for _, group in groupby(rows, key=lambda row: row.get("tools")))
        return [text for group in groups for text in self._rendered(group)]

    def _rendered(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        texts: list[str]
        texts, _ = render_jinja_template(
            conversations=[row["messages"] for row in rows],
            tools=rows[0].get("tools"),
            chat_template=self._template,
        )
        return texts


def batches(path: Path) -> Iterator[list[bytes]]:
    with path.open("rb") as file:
        while lines := list(islice(file, BATCH)):
            yield lines


def _parse_arguments(messages: Sequence[dict[str, Any]]) -> None:
    """Templates take objects; the data have strings, as the API gives them."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            function["arguments"] = orjson.loads(function["arguments"])
