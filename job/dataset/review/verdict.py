"""Whether the data may be trained on, with every reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from job.dataset.options import PrepareOptions
from job.dataset.review.balance import reason
from job.dataset.review.report import DataRejected, DataReport, problems_of
from job.dataset.review.tally import Example
from job.errors import Problem


def judge(report: DataReport, too_long: Sequence[Example], options: PrepareOptions) -> None:
    """Raise `DataRejected` if the data may not be trained on."""
    problems = [
        *_invalid(report, options),
        *_too_long(too_long, options),
        *_nothing_trained(report, options),
    ]
    if problems:
        raise DataRejected(problems, report)


def _invalid(report: DataReport, options: PrepareOptions) -> Iterator[Problem]:
    invalid = report.counts["invalid"]
    if options.invalid_rows == "skip":
        yield from _lost_files(report)
        if invalid <= options.max_invalid_fraction * report.rows:
            return
        share = f"{invalid} of {report.rows} rows are invalid"
        limit = f"FORGE_MAX_INVALID_FRACTION allows {options.max_invalid_fraction:.2%}"
        yield Problem("data", f"{share}, {limit}")
    yield from problems_of(report.rejected)


def _lost_files(report: DataReport) -> Iterator[Problem]:
    """Files with invalid rows and no other: one that is no JSON lines at all counts as one row."""
    firsts = {row.uri: row for row in reversed(report.rejected)}
    for file in report.files:
        if file.rows and file.invalid == file.rows:
            uri = file.source.uri
            found, hint = f"holds no valid row ({file.invalid} invalid)", ""
            if uri in firsts:
                first, *_ = firsts[uri].as_problems()
                found += f"; line {firsts[uri].line}: {first.found}"
                hint = f"{first.hint}; " if first.hint else ""
            yield Problem(uri, found, f"{hint}FORGE_INVALID_ROWS=skip leaves out no whole file")


def _too_long(examples: Sequence[Example], options: PrepareOptions) -> Iterator[Problem]:
    hint = f"{options.more_room}, or set FORGE_OVERLONG_ROWS to drop or trim_turns"
    for example in examples:
        yield Problem(f"{example.uri}:{example.line}", example.detail, hint)


def _nothing_trained(report: DataReport, options: PrepareOptions) -> Iterator[Problem]:
    counts, ratio = report.counts, report.supervised_ratio
    if not report.rows:
        names = ", ".join(file.source.uri for file in report.files)
        yield Problem(names or "data", "holds no rows", "set FORGE_DATASET_URI to data that does")
    elif report.rows == counts["invalid"] and options.invalid_rows == "fail":
        return  # every one of them has its own problem
    elif not counts["train"]:
        yield _no_row_left(report, options)
    elif ratio is not None and ratio < options.min_supervised_ratio:
        yield Problem(
            "data",
            f"only {ratio:.3%} of the training tokens have a label "
            f"({report.supervised_tokens} of {report.tokens}), FORGE_MIN_SUPERVISED_RATIO is "
            f"{options.min_supervised_ratio:.3%}",
            "most of the GPU's time would go into prompts: shorten system turns and tool lists, or "
            "lower the setting",
        )


def _no_row_left(report: DataReport, options: PrepareOptions) -> Problem:
    left = ", ".join(f"{n} {name}" for name, n in report.counts.items() if n)
    hint = f"lower FORGE_EVAL_FRACTION, {options.more_room}, or add rows"
    hint = reason(report.rows, report.largest_group, report.same_prompt, 0.5, 2) or hint
    return Problem("data", f"no row is left to train on ({left})", hint)
