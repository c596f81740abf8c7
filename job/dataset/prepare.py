"""The data stage: rows are read, checked, rendered, masked, measured and stored in one pass, then
split and looked over as a whole.

Nothing is cut or left out silently: every row is counted in the report under what became of it.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from job.dataset.leakage import candidates, involved, leaked
from job.dataset.options import PrepareOptions
from job.dataset.reread import rows_at
from job.dataset.review.report import DataReport, FileReport, Lengths
from job.dataset.review.showcase import conversations, for_report, page, shown
from job.dataset.review.tally import Counted, Tally
from job.dataset.review.verdict import judge
from job.dataset.rows.hermes import parse_tool_calls
from job.dataset.rows.row import Message, Row
from job.dataset.scan import QUARANTINE, Scan
from job.dataset.source.fetch import DataFile
from job.dataset.split import Split, split
from job.dataset.store import Rows, Samples, Store, StoreWriter
from job.dataset.tokens.chat import ChatFormat
from job.dataset.turns import distinct_turns

log = logging.getLogger(__name__)

_FORMAT: Final = 2
"""Raised when the same data and settings give other tokens or other records."""


@dataclass(frozen=True)
class PreparedData:
    """What training and evaluation get."""

    train: Samples
    """In the order of the data."""
    evaluation: Samples
    """In the order of their place in the split; empty where nothing is held out."""
    evaluation_rows: list[Row]
    """The same, as turns to generate answers for."""
    report: DataReport


def prepare(
    files: Sequence[DataFile],
    chat: ChatFormat,
    options: PrepareOptions,
    folder: Path,
    alive: Callable[[], None] = lambda: None,
) -> PreparedData:
    """Make samples of every row of `files`, in `folder`, where they stay memory-mapped.

    What `folder` holds from an attempt with the same data, model and options is used again.
    `alive` is called, from any thread, as rows are read and written: hours may pass. Raises
    `DataRejected` (a `DataError`) with all that is wrong: invalid or overlong rows as the options
    judge them, no rows, none left to train on, hardly a token with a label. Raises `OutOfDisk`.
    """
    store, tally = _scanned(files, chat, options, folder, alive)
    sides = _split(store.rows, options)
    report = _report(files, tally, store.rows, sides, options)
    resembling = candidates(store.rows, sides.train, sides.evaluation)
    on_page = shown(store.rows, sides)
    wanted = {*sides.evaluation.tolist(), *involved(resembling), *on_page}
    rows = rows_at(files, store.rows, wanted, alive)
    report = replace(
        report,
        leakage=leaked(resembling, rows.__getitem__),
        quarantine=folder / QUARANTINE if tally.refused else None,
    )
    report = _with_calls(report, _held_out(rows, sides))
    samples = conversations(on_page, rows, store, chat)
    preview = page(samples, report.as_dict())
    report = replace(report, preview=preview, samples=for_report(samples))
    judge(report, tally.too_long, options)
    return PreparedData(
        train=Samples(store, sides.train),
        evaluation=Samples(store, sides.evaluation),
        evaluation_rows=_held_out(rows, sides),
        report=report,
    )


def is_prepared(folder: Path) -> bool:
    """Whether `prepare` has stored all of its samples in `folder`: nobody writes there any more."""
    return Store.is_whole(folder / "store")


def check_only(files: Sequence[DataFile], options: PrepareOptions) -> DataReport:
    """All that can be said of the rows without a tokenizer. Raises `DataRejected`, `OutOfDisk`."""
    with tempfile.TemporaryDirectory(prefix="forge-check-") as temporary:
        folder = Path(temporary)
        with StoreWriter(folder / "rows") as writer:
            tally = Scan(files, None, options, writer, folder / QUARANTINE).run(files)
            store = writer.complete("", None)
        sides = _split(store.rows, options)
        report = _report(files, tally, store.rows, sides, options)
        resembling = candidates(store.rows, sides.train, sides.evaluation)
        rows = rows_at(files, store.rows, {*sides.evaluation.tolist(), *involved(resembling)})
        report = replace(report, leakage=leaked(resembling, rows.__getitem__))
        report = _with_calls(report, _held_out(rows, sides))
    judge(report, tally.too_long, options)
    return report


def _with_calls(report: DataReport, held_out: list[Row]) -> DataReport:
    """How many evaluation turns there are in which the assistant calls a tool."""
    every = sum(_calls(row.messages[i]) for row in held_out for i in row.assistant_turns)
    distinct = sum(_calls(row.messages[i]) for row, i in distinct_turns(held_out))
    return replace(report, held_out_calls=distinct, held_out_repeats=every - distinct)


def _calls(turn: Message) -> bool:
    return bool(turn.get("tool_calls") or parse_tool_calls(turn.get("content") or ""))


def _held_out(rows: Mapping[int, Row], sides: Split) -> list[Row]:
    return [rows[index] for index in sides.evaluation.tolist()]


def _scanned(
    files: Sequence[DataFile],
    chat: ChatFormat,
    options: PrepareOptions,
    folder: Path,
    alive: Callable[[], None],
) -> tuple[Store, Tally]:
    """The store and the tally of a pass, or those that an earlier attempt left here."""
    key = _key(files, chat, options)
    store = Store.open(folder / "store", key)
    if store is not None:
        log.info("the tokenized data of an earlier attempt are here, and are used again")
        return store, Tally.from_dict(store.notes)
    with StoreWriter(folder / "store") as writer:
        tally = Scan(files, chat, options, writer, folder / QUARANTINE, alive).run(files)
        return writer.complete(key, tally.as_dict()), tally


def _key(files: Sequence[DataFile], chat: ChatFormat, options: PrepareOptions) -> str:
    """What the tokens depend on."""
    made_from = (
        _FORMAT,
        [(file.source.uri, file.source.sha256) for file in files],
        chat.sha256,
        asdict(options),
    )
    return hashlib.sha256(orjson.dumps(made_from)).hexdigest()


def _split(rows: Rows, options: PrepareOptions) -> Split:
    return split(
        rows["prompt"], rows["id"], rows["content"], options.eval_fraction, options.eval_max_rows
    )


def _report(
    files: Sequence[DataFile], tally: Tally, rows: Rows, sides: Split, options: PrepareOptions
) -> DataReport:
    counts = {
        "train": len(sides.train),
        "evaluation": len(sides.evaluation),
        "held_out_unused": sides.unused,
        "invalid": tally.refused,
        "overlong_dropped": tally.dropped.count,
    }
    tokenized = bool(tally.lengths)
    return DataReport(
        files=tuple(
            FileReport(file.source, *count)
            for file, count in zip(files, tally.by_file(files), strict=True)
        ),
        counts=counts,
        dialects=dict(tally.dialects),
        trimmed=tally.trimmed,
        dropped=tally.dropped,
        duplicates=_duplicates(files, rows),
        leakage=Counted(),
        warnings=tally.warnings,
        max_seq_length=options.max_seq_length,
        lengths=Lengths.of(tally.lengths),
        tokens=int(rows["tokens"][sides.train].sum()) if tokenized else None,
        supervised_tokens=int(rows["supervised"][sides.train].sum()) if tokenized else None,
        rejected=tuple(tally.rejected),
        largest_group=sides.largest_group,
        same_prompt=sides.same_prompt,
        eval_fraction=options.eval_fraction,
    )


def _duplicates(files: Sequence[DataFile], rows: Rows) -> Counted:
    """Rows whose conversation an earlier row has."""
    counted = Counted()
    contents = np.asarray(rows["content"])
    order = np.argsort(contents, kind="stable")
    again = np.flatnonzero(contents[order][1:] == contents[order][:-1]) + 1
    firsts = dict(zip(order[again].tolist(), order[again - 1].tolist(), strict=True))
    for index in sorted(firsts):
        file, other = files[int(rows[index]["file"])], rows[firsts[index]]
        where = f"{files[int(other['file'])].source.uri}:{other['line']}"
        counted.add(file.source.uri, int(rows[index]["line"]), f"the conversation of {where}")
    return counted
