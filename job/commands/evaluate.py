"""`evaluate`: a serving stack judged by held-out rows, with the job's own score. Free of torch."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from job.commands.output import deliver
from job.config import load_settings
from job.dataset import RejectedRow, Row, fetch, read_rows
from job.errors import DataError, GateFailed, Problem, SettingsError
from job.evaluation.asking import Bounds, answers_to
from job.evaluation.document import Answer, Turn, document, repeated, turns_of
from job.evaluation.endpoint import Endpoint
from job.lifecycle import StopToken
from job.logs import configure
from job.promotion.gate import Gate, Names
from job.redact import Redactor
from job.stages.held_out import held_out_rows

_NAMES: Final = Names("--min-exact", "--min-gain", "--seconds")


@dataclass(frozen=True)
class Asked:
    """What is judged, and what it may cost."""

    model: str
    base_model: str | None = None
    concurrency: int = 8
    seconds: float = 0.0
    """After which no more turns are asked; 0 for no bound."""


def rows_to_judge(dataset: Sequence[str], max_rows: int | None) -> list[Row]:
    """All rows of `dataset`; without one, those that the run of the `FORGE_*` settings holds out.

    Raises `DataError` for rows that can't be read, and where there are none.
    """
    with tempfile.TemporaryDirectory(prefix="forge-evaluate-") as folder:
        read = list(islice(_rows(dataset, Path(folder)), max_rows))
    if refused := [row for row in read if isinstance(row, RejectedRow)]:
        raise DataError(problem for row in refused for problem in row.as_problems())
    rows = [row for row in read if isinstance(row, Row)]
    if not rows:
        raise DataError(Problem("evaluate", "there are no rows to judge by"))
    return rows


def _rows(dataset: Sequence[str], folder: Path) -> Iterator[Row | RejectedRow]:
    if dataset:
        return read_rows(fetch(dataset, folder / "data"))
    return iter(held_out_rows(load_settings(), folder))


def judge(rows: Sequence[Row], endpoint: Endpoint, asked: Asked, stop: StopToken) -> dict[str, Any]:
    """Ask for every assistant turn of `rows`; what `job.evaluation.document` describes.

    Each turn is asked of both models, if there are two, so that time that ends leaves the same
    turns of both. Raises `Stopped`, and what `Endpoint.answer` does.
    """
    turns, began = turns_of(rows), time.monotonic()
    models = [asked.model] if asked.base_model is None else [asked.model, asked.base_model]
    patience = endpoint.timeout_seconds * len(models)

    def ask(turn: Turn) -> list[Answer]:
        return [endpoint.answer(model, turn) for model in models]

    answers = answers_to(turns, ask, Bounds(asked.concurrency, asked.seconds, patience), stop)
    return document(
        turns,
        None if asked.base_model is None else {n: found[1] for n, found in answers.items()},
        {n: found[0] for n, found in answers.items()},
        repeated=repeated(rows, turns),
        stopped_by=None if len(answers) == len(turns) else "seconds",
        seconds=time.monotonic() - began,
    )


def lines(evaluation: dict[str, Any]) -> list[str]:
    """A table for people."""
    same = f"; {n} more are the same" if (n := evaluation["repeated"]) else ""
    over = "; then --seconds was over" if evaluation["stopped_by"] else ""
    said = [f"{evaluation['rows']} of {evaluation['turns']} turns judged{same}{over}"]
    for measure, found in evaluation["adapter"].items():
        base = evaluation["base"].get(measure)
        before = f"{base['rate']:7.1%} → " if base else ""
        said.append(
            f"{measure:<16} {before}{found['rate']:7.1%}  "
            f"({found['low']:.1%} to {found['high']:.1%}, {found['count']} of {found['of']})"
        )
    return said


def command(arguments: argparse.Namespace) -> int:
    configure("auto", None)
    stop = StopToken()
    stop.install()
    return judged(arguments, stop)


def judged(arguments: argparse.Namespace, stop: StopToken) -> int:
    """As `command`, under somebody else's signals."""
    gate = Gate(arguments.min_exact, arguments.min_gain, names=_NAMES)
    if arguments.min_gain is not None and arguments.base_model is None:
        raise SettingsError("--min-gain: there is nothing to gain over without --base-model")
    key = os.environ.get(arguments.api_key_env) if arguments.api_key_env else None
    if arguments.api_key_env and not key:
        raise SettingsError(f"--api-key-env: {arguments.api_key_env} is not set")
    asked = Asked(arguments.model, arguments.base_model, arguments.concurrency, arguments.seconds)
    rows = rows_to_judge(arguments.dataset, arguments.max_rows)
    limit = arguments.max_tokens
    with closing(Endpoint(arguments.endpoint, key, stop.pause, max_new_tokens=limit)) as endpoint:
        found = judge(rows, endpoint, asked, stop)
    # A server may quote what it was sent.
    shown = Redactor({**os.environ, "ENDPOINT_KEY": key or ""}).plain(found)
    as_json = arguments.json or arguments.output
    deliver((json.dumps(shown) if as_json else "\n".join(lines(shown))) + "\n", arguments.output)
    if failure := gate.verdict(found):
        raise GateFailed(failure)
    return 0
