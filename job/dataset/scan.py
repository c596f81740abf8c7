"""The pass over the data: rows are read and checked here, rendered, and tokenized behind it.

Reading and rendering are Python and hold its lock; the tokenizer works outside of it. So one batch
is read while a thread encodes the one before, and another thread hashes and writes the one before
that.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from job.dataset.identity import Identity, sketches
from job.dataset.options import PrepareOptions
from job.dataset.review.report import problems_of
from job.dataset.review.tally import REPORTED, Example, Tally
from job.dataset.rows.read import read_rows
from job.dataset.rows.row import RejectedRow, Row, RowProblem, RowRefused
from job.dataset.rows.secrets import mask_secrets
from job.dataset.rows.words import brief
from job.dataset.source.fetch import DataFile
from job.dataset.store import ROW, Rows, StoreWriter
from job.dataset.tokens.chat import ChatFormat
from job.dataset.tokens.samples import Encoded, Rendered, Sample
from job.errors import DataError

log = logging.getLogger(__name__)

QUARANTINE: Final = "quarantine.jsonl"
_BATCH_ROWS: Final = 500
_BATCH_BYTES: Final = 8_000_000
_IN_FLIGHT: Final = 3
"""Batches that wait for the tokenizer: with the limits above, what memory there is to hold."""
_LOG_SECONDS: Final = 15.0
"""Seconds between lines of the log."""


class Scan:
    """The state of one pass."""

    def __init__(
        self,
        files: Sequence[DataFile],
        chat: ChatFormat | None,
        options: PrepareOptions,
        writer: StoreWriter,
        quarantine: Path,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """`alive` is called, from two threads, whenever a batch was read or written."""
        self.tally = Tally()
        self._files = {file.source.uri: n for n, file in enumerate(files)}
        self._chat = chat
        self._options = options
        self._writer = writer
        self._quarantine = quarantine.open("wb")
        self._alive = alive

    def run(self, files: Sequence[DataFile]) -> Tally:
        """Read `files` to their end, or to where nobody would read a longer list of faults.

        Raises `DataError` where files are damaged, with the invalid rows besides unless they may be
        skipped, and `OutOfDisk`.
        """
        encoding, finishing = ThreadPoolExecutor(1, "encode"), ThreadPoolExecutor(1, "finish")
        try:
            with self._quarantine:
                damage = self._read(files, encoding, finishing)
        finally:
            # Who is stopped or out of disk doesn't wait for batches that nobody needs.
            encoding.shutdown(wait=False, cancel_futures=True)
            finishing.shutdown(wait=False, cancel_futures=True)
        order = self._files
        self.tally.rejected.sort(key=lambda row: (order[row.uri], row.line))
        if damage is not None:
            told = problems_of(self.tally.rejected) if self._options.invalid_rows == "fail" else ()
            raise DataError([*damage.problems, *told]) from damage
        return self.tally

    def _read(
        self,
        files: Sequence[DataFile],
        encoding: ThreadPoolExecutor,
        finishing: ThreadPoolExecutor,
    ) -> DataError | None:
        """What is damaged, if anything: what can be read is looked at all the same."""
        last_logged = time.monotonic()
        pending: deque[Future[None]] = deque()
        batches = _Batches(read_rows(files))
        for batch in batches:
            rows, texts = self._checked_and_rendered(batch)
            if len(pending) == _IN_FLIGHT:
                pending.popleft().result()
            samples = encoding.submit(self._encode, texts)
            pending.append(finishing.submit(self._finish, rows, samples))
            self._alive()
            if time.monotonic() - last_logged > _LOG_SECONDS:
                last_logged = time.monotonic()
                log.info("data: %d rows read", self.tally.rows.total())
            if self._options.invalid_rows == "fail" and self.tally.refused >= REPORTED:
                break
        while pending:
            pending.popleft().result()
        return batches.damage

    def _checked_and_rendered(
        self, batch: Sequence[Row | RejectedRow]
    ) -> tuple[list[Row], list[Rendered] | None]:
        """The valid rows of a batch, and their text where there is a tokenizer."""
        rows = []
        for row in batch:
            self.tally.saw(row)
            if isinstance(row, Row):
                rows.append(row)
            else:
                self._refuse(row)
        if self._chat is None:
            return rows, None
        kept, texts = [], []
        for row, text in zip(rows, self._rendered(self._chat, rows), strict=True):
            if isinstance(text, RowRefused):
                self._refuse(row.rejected(text.problem))
            else:
                kept.append(row)
                texts.append(text)
                if text.begun:
                    self.tally.warn(row, _begun(text.begun))
        return kept, texts

    def _rendered(self, chat: ChatFormat, rows: Sequence[Row]) -> list[Rendered | RowRefused]:
        return chat.render_all(rows, self._options.max_seq_length, self._alive)

    def _encode(self, texts: list[Rendered] | None) -> Encoded | None:
        if texts is None or self._chat is None:
            return None
        return self._chat.encode(texts, self._options.loss_on)

    def _finish(self, rows: list[Row], encoded: Future[Encoded | None]) -> None:
        self._write(rows, encoded.result())
        self._alive()

    def _write(self, rows: list[Row], samples: Encoded | None) -> None:
        if samples is None or self._chat is None:
            self._writer.append_rows(self._records(rows, None))
            return
        self.tally.lengths.update(samples.lengths.tolist())
        rows, samples = self._fitting(self._chat, rows, samples)
        self._writer.append(samples, self._records(rows, samples))

    def _fitting(
        self, chat: ChatFormat, rows: list[Row], samples: Encoded
    ) -> tuple[list[Row], Encoded]:
        """Without the rows that are too long or train nothing, and with those that were cut."""
        lengths, supervised = samples.lengths, samples.supervised()
        for place in np.flatnonzero(samples.straddling):
            self.tally.warn(rows[place], _STRADDLES)
        too_long = lengths > self._options.max_seq_length
        for place in np.flatnonzero(~too_long & (supervised == 0)):
            self._refuse(rows[place].rejected(_NOTHING_TRAINED))
        kept = ~too_long & (supervised > 0)
        if kept.all():
            return rows, samples
        parts: list[tuple[Row, Sample]] = []
        for i, row in enumerate(rows):
            if kept[i]:
                parts.append((row, samples[i]))
            elif too_long[i] and (cut := self._shortened(chat, row, int(lengths[i]))):
                parts.append(cut)
        return [row for row, _ in parts], Encoded.of([sample for _, sample in parts])

    def _shortened(self, chat: ChatFormat, row: Row, tokens: int) -> tuple[Row, Sample] | None:
        """The row and its sample as they fit, or `None` if the row is left out."""
        policy = self._options.overlong_rows
        found = f"has {tokens} tokens, {self._options.length_limit}"
        if policy == "fail" and len(self.tally.too_long) < REPORTED:
            self.tally.too_long.append(Example(row.uri, row.line, found))
        if policy == "trim_turns" and (cut := self._trimmed(chat, row)):
            turns, left = len(cut[0].messages), len(cut[1].input_ids)
            detail = f"{found}; {turns} of {len(row.messages)} turns stay, {left} tokens"
            self.tally.trimmed.add(row.uri, row.line, detail)
            return cut
        self.tally.dropped.add(row.uri, row.line, found)
        return None

    def _trimmed(self, chat: ChatFormat, row: Row) -> tuple[Row, Sample] | None:
        """The longest beginning that ends with an answer, fits, and trains something."""
        best: tuple[Row, Sample] | None = None
        turns = row.assistant_turns
        fewest, most = 1, len(turns) - 1
        while fewest <= most:
            middle = (fewest + most) // 2
            shorter = replace(row, messages=row.messages[: turns[middle - 1] + 1])
            [text] = self._rendered(chat, [shorter])
            if isinstance(text, RowRefused):
                return best
            [sample] = chat.encode([text], self._options.loss_on)
            if len(sample.input_ids) <= self._options.max_seq_length:
                best, fewest = (shorter, sample), middle + 1
            else:
                most = middle - 1
        return best if best is None or best[1].supervised else None

    def _records(self, rows: Sequence[Row], samples: Encoded | None) -> Rows:
        records = np.zeros(len(rows), dtype=ROW)
        records["file"] = [self._files[row.uri] for row in rows]
        records["line"] = [row.line for row in rows]
        records["turns"] = [len(row.messages) for row in rows]
        known = [Identity.of(row) for row in rows]
        records["content"] = [one.content for one in known]
        records["prompt"] = [one.prompt for one in known]
        records["id"] = [one.id for one in known]
        records["bands"] = sketches([one.asked for one in known])
        if samples is not None:
            records["tokens"] = samples.lengths
            records["supervised"] = samples.supervised()
        return records

    def _refuse(self, row: RejectedRow) -> None:
        self.tally.refuse(row)
        text = row.raw.decode("utf-8", "surrogateescape")
        self._quarantine.write(mask_secrets(text).encode("utf-8", "surrogateescape") + b"\n")


_NOTHING_TRAINED: Final = RowProblem("messages", "no token of any assistant turn can be trained")
_STRADDLES: Final = RowProblem(
    "messages", "the first token of an answer holds a part of the turn's header, and isn't trained"
)


def _begun(text: str) -> RowProblem:
    reason = (
        f"an answer doesn't begin with '{brief(text, 40)}', as the chat template has every answer "
        "begin when it serves: give the data thoughts, or the model a template that asks for none"
    )
    return RowProblem("messages", reason)


class _Batches:
    """Some rows at a time."""

    def __init__(self, rows: Iterator[Row | RejectedRow]) -> None:
        self._rows = rows
        self.damage: DataError | None = None
        """What ended the rows, where they did not end by themselves."""

    def __iter__(self) -> Iterator[list[Row | RejectedRow]]:
        batch: list[Row | RejectedRow] = []
        size = 0
        try:
            for row in self._rows:
                batch.append(row)
                size += len(row.raw)
                if len(batch) == _BATCH_ROWS or size > _BATCH_BYTES:
                    yield batch
                    batch, size = [], 0
        except DataError as error:
            self.damage = error
        if batch:
            yield batch
