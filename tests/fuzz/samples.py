"""What must hold of every sample that the data stage makes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from tokenizers import Tokenizer

from job.dataset import ChatFormat, PreparedData, RejectedRow, Rendered, Row, Sample
from tests.dataset.masks import IGNORED, as_read_by, expected_labels, stretches
from tests.dataset.standin_families import Family, chat_of, tokenizer_of
from tests.fuzz.cases import MODELS, Case
from tests.fuzz.violation import ensure

_AMBIGUOUS: Final = re.compile("｜tool▁outputs▁end｜|TOOL_RESULTS]")
"""Text in which the family's markers don't tell what the assistant says: not all are tokens."""


@cache
def chat_format(model: str) -> ChatFormat:
    """The stand-in's, loaded once."""
    return chat_of(MODELS[model])


@cache
def _tokenizer(model: str) -> Tokenizer:
    return tokenizer_of(MODELS[model])


def hold_samples(data: PreparedData, case: Case, rows: Sequence[Row | RejectedRow]) -> None:
    """Every sample is what its row says, and is trained where the assistant speaks."""
    options, store = case.prepare_options(), data.train.store
    accepted = {(row.uri, row.line): row for row in rows if isinstance(row, Row)}
    names = [file.source.uri for file in data.report.files]
    for index, record in enumerate(store.rows):
        row, sample = accepted[names[record["file"]], int(record["line"])], store.sample(index)
        row = replace(row, messages=row.messages[: record["turns"]])
        ids, labels = sample.input_ids.tolist(), sample.labels.tolist()
        lengths = (len(ids), sample.supervised)
        ensure(lengths == (record["tokens"], record["supervised"]), "tokens miscounted", row)
        ensure(0 < sample.supervised <= len(ids) <= options.max_seq_length, "no such length", row)
        pairs = zip(ids, labels, strict=True)
        ensure(all(label in (IGNORED, i) for i, label in pairs), "a label that is no id", row)
        inner = json.dumps([row.messages, row.tools], ensure_ascii=False)
        tokens = [t for t in chat_format(case.model)._template.turn_tokens if t in inner]
        ensure(not tokens, "a turn holds the token between turns", (tokens, row))
        [rendered] = chat_format(case.model).render_all([row])
        ensure(isinstance(rendered, Rendered), "accepted, but refused once more", row)
        assert isinstance(rendered, Rendered)
        whole = _tokenizer(case.model).encode(rendered.text, add_special_tokens=False).ids
        ensure(whole == ids, "ids are not those of the whole text", row)
        if options.loss_on == "all":
            ensure(labels == ids, "not all tokens are trained", row)
        else:
            _said(case.model, row, sample, rendered)


def _said(model: str, row: Row, sample: Sample, rendered: Rendered) -> None:
    """All that the assistant says is trained, and nothing else."""
    family, tokenizer = MODELS[model], _tokenizer(model)
    if not _AMBIGUOUS.search(str(row.messages)):
        exact = expected_labels(family, tokenizer, sample.input_ids.tolist())
        ensure(exact == sample.labels.tolist(), "the mask is another one", (row, rendered.text))
    if chat_format(model).encode([rendered], "assistant").straddling[0]:
        return
    trained = "".join(each.text for each in stretches(tokenizer, sample) if each.trained)
    position, dense = 0, _dense(family, trained)
    for part in _spoken(row):
        forms = (
            _dense(family, form) for form in (part, json.dumps(part, ensure_ascii=False)[1:-1])
        )
        found = max(dense.find(form, position) for form in forms)
        ensure(found >= 0, "what the assistant says isn't trained", (part, trained))
        position = found


def _dense(family: Family, text: str) -> str:
    """As the tokenizer reads it, without white space, which templates change."""
    return "".join(as_read_by(family, text).split())


def _spoken(row: Row) -> Iterator[str]:
    for turn in (row.messages[i] for i in row.assistant_turns):
        yield from filter(None, (turn.get("reasoning_content"), turn["content"]))
        for call in turn.get("tool_calls", ()):
            yield call["function"]["name"]
            yield from filter(None, _strings(call["function"]["arguments"]))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
