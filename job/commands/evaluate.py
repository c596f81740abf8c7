"""`evaluate`: a serving stack judged by held-out rows, with the job's own score. Free of torch."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from job.commands.output import deliver
from job.config import load_settings
from job.dataset import PrepareOptions, RejectedRow, Row, fetch, prepare, read_rows
from job.errors import DataError, GateFailed, Problem, SettingsError
from job.evaluation.document import Answer, Turn, document, repeated, turns_of
from job.evaluation.endpoint import Endpoint
from job.lifecycle import StopToken
from job.logs import configure
from job.model import look_at
from job.promotion.gate import Gate

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class Asked:
    """What is judged, and what it may cost."""

    model: str
    base_model: str | None = None
    concurrency: int = 8
    seconds: float = 0.0
    """0 for no bound."""


def rows_to_judge(dataset: Sequence[str], max_rows: int | None) -> list[Row]:
    """All rows of `dataset`; without one, those that the run of the `FORGE_*` settings holds out.

    Raises `DataError` for rows that can't be read, and where there are none.
    """
    with tempfile.TemporaryDirectory(prefix="forge-evaluate-") as folder:
        rows = list(islice(_rows(dataset, Path(folder)), max_rows))
    if not rows:
        raise DataError(Problem("evaluate", "there are no rows to judge by"))
    return rows


def _rows(dataset: Sequence[str], folder: Path) -> Iterator[Row]:
    if not dataset:
        settings = load_settings()
        model = look_at(settings, folder)
        options = PrepareOptions.from_settings(settings, model.position_limit)
        files = fetch(settings.dataset_uri, folder / "data", output_uri=settings.output_uri)
        yield from prepare(files, model.chat, options, folder / "prepared").evaluation_rows
        return
    for row in read_rows(fetch(dataset, folder / "data")):
        if isinstance(row, RejectedRow):
            raise DataError(row.as_problems())
        yield row


def judge(rows: Sequence[Row], endpoint: Endpoint, asked: Asked, stop: StopToken) -> dict[str, Any]:
    """Ask for every assistant turn of `rows`; what `job.evaluation.document` describes.

    Each turn is asked of both models, if there are two, so that time that ends leaves the same
    turns of both. Raises `Stopped`, and what `Endpoint.answer` does.
    """
    turns, began = turns_of(rows), time.monotonic()
    models = [asked.model] if asked.base_model is None else [asked.model, asked.base_model]

    def over() -> bool:
        return 0 < asked.seconds <= time.monotonic() - began

    def ask(turn: Turn) -> list[Answer]:
        return [endpoint.answer(model, turn) for model in models]

    answers: dict[int, list[Answer]] = {}
    left = iter(enumerate(turns))
    pending: dict[Future[list[Answer]], int] = {}
    while not over():
        for number, turn in islice(left, asked.concurrency - len(pending)):
            pending[_begun(partial(ask, turn))] = number
        if not pending:
            break
        for future in wait(pending, _TICK_SECONDS, FIRST_COMPLETED).done:
            answers[pending.pop(future)] = future.result()
        stop.check()
    return document(
        turns,
        None if asked.base_model is None else {n: found[1] for n, found in answers.items()},
        {n: found[0] for n, found in answers.items()},
        repeated=repeated(rows, turns),
        stopped_by=None if len(answers) == len(turns) else "seconds",
        seconds=time.monotonic() - began,
    )


def _begun(work: Callable[[], list[Answer]]) -> Future[list[Answer]]:
    """In a daemon thread: a pool's threads would keep the process, once it is asked to go or time
    is over, for as long as a server takes over its answer."""
    future: Future[list[Answer]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="evaluate", daemon=True).start()
    return future


def lines(evaluation: dict[str, Any]) -> list[str]:
    """A table for people."""
    same = f"; {n} more are the same" if (n := evaluation["repeated"]) else ""
    said = [f"{evaluation['rows']} of {evaluation['turns']} turns judged{same}"]
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
    gate = Gate(arguments.min_exact, arguments.min_gain)
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
    as_json = arguments.json or arguments.output
    deliver((json.dumps(found) if as_json else "\n".join(lines(found))) + "\n", arguments.output)
    if failure := gate.verdict(found):
        raise GateFailed(failure)
    return 0
