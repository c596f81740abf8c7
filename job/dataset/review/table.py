"""The data's report for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from job.dataset.review.report import DataReport
from job.dataset.review.tally import Counted

_SHOWN = 3
"""Examples of each kind."""


def table(report: DataReport) -> Iterator[str]:
    """Lines: files, rows by result, tokens, and what else to know, with examples."""
    for file in report.files:
        source = file.source
        yield f"{source.uri}  {file.rows} rows, {source.size / 1e6:.1f} MB, {source.sha256[:12]}…"
    yield ""
    for name, count in report.counts.items():
        yield _line(name.replace("_", " "), count, report.rows)
    yield from _tokens(report)
    told = {
        "invalid": report.invalid,
        "trimmed to fit": report.trimmed,
        "left out as too long": report.dropped,
        "duplicates (kept)": report.duplicates,
        "prompts nearly held out (kept)": report.leakage,
        **report.warnings,
    }
    for what, found in told.items():
        yield from _examples(what, found)
    for line in report.lopsided():
        yield from ("", f"  {line}")


def _line(name: str, count: int, rows: int) -> str:
    share = f"{count / rows:7.1%}" if rows else ""
    return f"  {name:<18}{count:>10}{share}"


def _tokens(report: DataReport) -> Iterator[str]:
    lengths = report.lengths
    if lengths is None or report.tokens is None or report.supervised_tokens is None:
        return
    yield ""
    yield (
        f"  tokens a row: {lengths.min} to {lengths.max}, median {lengths.p50}, "
        f"95% up to {lengths.p95}; at most {report.max_seq_length} are trained on"
    )
    yield (
        f"  tokens in training: {report.tokens}, with a label {report.supervised_tokens} "
        f"({report.supervised_ratio or 0:.1%})"
    )


def _examples(what: str, found: Counted) -> Iterator[str]:
    if not found.count:
        return
    yield ""
    yield f"  {what}: {found.count}"
    for example in found.examples[:_SHOWN]:
        yield f"    {example.uri}:{example.line}  {example.detail}"
    if found.count > _SHOWN:
        yield f"    … and {found.count - _SHOWN} more"
