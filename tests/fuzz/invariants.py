"""What must hold of the data stage, whatever it is fed."""

from __future__ import annotations

import gzip
import hashlib
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Final
from unittest.mock import patch

import zstandard

from job.dataset import (
    DataFile,
    DataObject,
    DataRejected,
    DataReport,
    PreparedData,
    RejectedRow,
    Row,
    check_only,
    prepare,
    read_rows,
)
from job.dataset.review.table import table
from job.dataset.rows import read, tools
from job.dataset.rows.read import read_row
from job.dataset.rows.secrets import find_secrets, mask_secrets
from job.dataset.source.lines import read_lines
from job.errors import DataError
from tests.fuzz.cases import Case, Part
from tests.fuzz.samples import chat_format, hold_samples
from tests.fuzz.violation import ensure

_SECONDS: Final = 5.0
_SECONDS_A_BYTE: Final = 40e-6
"""CPU time that a case may take; a hang, or what grows with the square of the input, takes more."""
_MEMORY: Final = 256 * 2**20
_MEMORY_A_BYTE: Final = 1024
"""Bytes by which a case may raise the peak."""


@dataclass(frozen=True)
class Outcome:
    """How a pass over the data ended."""

    data: PreparedData | None
    report: DataReport | None
    error: DataError | None

    @property
    def damaged(self) -> bool:
        """A stream was damaged, so the pass ended early."""
        return self.report is None


def hold(case: Case, folder: Path) -> None:
    """Put `case` through the whole stage, in an empty `folder`.

    Raises `Violation`, or what the stage raises and may not raise.
    """
    before = time.process_time(), _peak()
    files = [_written(part, folder / f"{n}{part.suffix}") for n, part in enumerate(case.parts)]
    chat, options = chat_format(case.model), case.prepare_options()
    checked = _outcome(lambda: check_only(files, options))
    first = _outcome(lambda: prepare(files, chat, options, folder / "out"))
    kept = _told(first, folder / "out")
    again = _outcome(lambda: prepare(files, chat, options, folder / "out"))
    seconds, memory = time.process_time() - before[0], _peak() - before[1]
    size = sum(len(part.plain()) for part in case.parts)
    ensure(seconds < _SECONDS + size * _SECONDS_A_BYTE, "slow", f"{seconds:.1f} s of CPU time")
    ensure(memory < _MEMORY + size * _MEMORY_A_BYTE, "memory", f"{memory >> 20} MiB at the peak")
    _same_end(case, checked, first, again)
    if first.damaged:
        return
    for what, told in _told(again, folder / "out").items():
        ensure(told == kept.get(what), f"{what} of a second attempt differ", (kept.get(what), told))
    rows = list(read_rows(files))
    _each_line_alone(files, case, rows)
    for outcome in (checked, first):
        _report_tells_all(outcome, case, files, rows)
    _agree(checked, first, rows)
    _no_secrets(first, folder / "out" / "quarantine.jsonl", rows)
    if first.data is not None:
        hold_samples(first.data, case, rows)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _written(part: Part, path: Path) -> DataFile:
    data = part.packed()
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return DataFile(DataObject(str(path), len(data), None, None, digest), path)


def _outcome(attempt: Callable[[], PreparedData | DataReport]) -> Outcome:
    try:
        result = attempt()
    except DataRejected as error:
        return Outcome(None, error.report, error)
    except DataError as error:
        return Outcome(None, None, error)
    if isinstance(result, DataReport):
        return Outcome(None, result, None)
    return Outcome(result, result.report, None)


def _told(outcome: Outcome, folder: Path) -> dict[str, object]:
    """All that a pass leaves, to be compared."""
    told: dict[str, object] = {"problems": str(outcome.error)}
    if (report := outcome.report) is not None:
        told["figures"] = report.as_dict()
        told["pages"] = report.preview
        told["rejected rows"] = (folder / "quarantine.jsonl").read_bytes(), report.quarantine
        told["files of the store"] = (folder / "store" / "complete.json").stat().st_mtime_ns
    if (data := outcome.data) is not None:
        for side, samples in (("train", data.train), ("evaluation", data.evaluation)):
            pairs = [(each.input_ids.tolist(), each.labels.tolist()) for each in samples]
            told[f"{side} samples"] = pairs
        told["evaluation rows"] = data.evaluation_rows
    return told


def _same_end(case: Case, checked: Outcome, first: Outcome, again: Outcome) -> None:
    """A stream is damaged for all or none, and only one that may be."""
    ensure(len({o.damaged for o in (checked, first, again)}) == 1, "damaged for one pass alone")
    harmed = any(part.harm and part.suffix != ".jsonl" for part in case.parts)
    ensure(harmed or not first.damaged, "a sound stream is called damaged", first.error)
    ensure(first.error is None or bool(str(first.error)), "an error that says nothing")


def _lines(part: Part) -> list[int]:
    """Numbers of the lines that aren't blank."""
    data = part.packed()
    if part.suffix.endswith(".gz"):
        data = gzip.decompress(data)
    elif part.suffix.endswith(".zst"):
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
            data = reader.read()
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [n for n, line in enumerate(lines, 1) if line.strip()]


def _each_line_alone(
    files: Sequence[DataFile], case: Case, rows: Sequence[Row | RejectedRow]
) -> None:
    """Every line is there once, and what is said of it doesn't depend on the lines around it."""
    pairs = list(zip(files, case.parts, strict=True))
    places = [(file.source.uri, number) for file, part in pairs for number in _lines(part)]
    found = [(row.uri, row.line) for row in rows]
    ensure(found == places, "lines lost or doubled", (places, found))
    wanted = dict(zip(places, rows, strict=True))
    for file in files:
        for line in read_lines(file):
            if (row := wanted.get((file.source.uri, line.number))) is not None:
                alone = read_row(file.source.uri, line)
                ensure(alone == row, "a line is read otherwise beside others", (alone, row))
                with _quick_looks_off():
                    careful = read_row(file.source.uri, line)
                ensure(careful == row, "a careful look says something else", (careful, row))


@contextmanager
def _quick_looks_off() -> Iterator[None]:
    """Every row, tool and call is looked at as closely as an odd one."""
    nothing_is_plain = SimpleNamespace(is_valid=lambda raw: False)
    with (
        patch.object(read, "ordinary", lambda value, tools: None),
        patch.object(read, "nothing_odd", lambda lines, values: False),
        patch.object(tools, "fits", lambda arguments, schema: False),
        patch.object(tools, "PLAIN_TOOLS", nothing_is_plain),
    ):
        yield


def _report_tells_all(
    outcome: Outcome, case: Case, files: Sequence[DataFile], rows: Sequence[Row | RejectedRow]
) -> None:
    report = outcome.report
    assert report is not None
    ensure(report.rows == len(rows), "rows miscounted", report.counts)
    counts = [file.rows for file in report.files]
    ensure(
        counts == [len(_lines(part)) for part in case.parts], "rows of a file miscounted", counts
    )
    ensure(len(report.rejected) == report.counts["invalid"], "invalid rows miscounted")
    places = [(row.uri, row.line) for row in report.rejected]
    known = [(row.uri, row.line) for row in rows]
    ensure(places == [place for place in known if place in set(places)], "rejected rows", places)
    for row in report.rejected:
        reasons = [problem.reason for problem in row.problems]
        ensure(bool(reasons) and all(reasons), "rejected without a reason", row)
    document = report.artifacts()["report.json"]
    assert isinstance(document, bytes)
    ensure(json.loads(document)["counts"] == report.counts, "report.json differs")
    text = "\n".join([report.headline(), *report.notices(), *table(report), str(outcome.error)])
    ensure(text.encode().decode() == text, "the report can't be printed")


def _agree(checked: Outcome, first: Outcome, rows: Sequence[Row | RejectedRow]) -> None:
    """Without the tokenizer the same rows are refused, but for those that the template refuses."""
    assert checked.report is not None
    assert first.report is not None
    refused = {(r.uri, r.line) for r in rows if isinstance(r, RejectedRow)}
    by_checks = {(r.uri, r.line): r for r in checked.report.rejected}
    by_all = {(r.uri, r.line): r for r in first.report.rejected}
    ensure(by_checks.keys() == refused, "check_only refuses other rows")
    for place, row in by_all.items():
        paths = [problem.path for problem in row.problems]
        if place in refused:
            ensure(row == by_checks.get(place), "prepare gives other reasons", row)
        else:
            ensure(paths[0].startswith(("messages", "tools")), "refused without a path", row)
    ensure(refused <= by_all.keys(), "prepare accepts what check_only refuses")


def _no_secrets(outcome: Outcome, quarantine: Path, rows: Sequence[Row | RejectedRow]) -> None:
    """None is in the report, and the quarantine holds each rejected row as it was, but for them."""
    report = outcome.report
    assert report is not None
    document = report.artifacts()["report.json"]
    assert isinstance(document, bytes)
    ensure(not find_secrets(document), "a secret in report.json", document)
    ensure(not find_secrets(str(outcome.error).encode()), "a secret in the error", outcome.error)
    rejected = {(row.uri, row.line) for row in report.rejected}
    kept = [row.raw for row in rows if (row.uri, row.line) in rejected]
    masked = [mask_secrets(raw.decode(errors="surrogateescape")) for raw in kept]
    expected = sorted(text.encode(errors="surrogateescape") + b"\n" for text in masked)
    lines = sorted(line + b"\n" for line in quarantine.read_bytes().split(b"\n")[:-1])
    ensure(b"".join(expected) == b"".join(lines), "the quarantine is another", (expected, lines))
    if report.preview is not None:
        ensure(b"<script" not in report.preview and b"<img" not in report.preview, "live preview")
