"""`status` and `plan`: what they read, and where their text goes."""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, TextIO

from job.errors import JobError, Problem, SettingsError
from job.terminal import encodable

_STDIN: Final = "-"


def status_command(arguments: argparse.Namespace) -> int:
    """`forge-job status`: its exit code."""
    try:
        return _status(arguments)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _status(arguments: argparse.Namespace) -> int:
    from job.status import status

    asked = (arguments.status, arguments.prefix, arguments.sort, arguments.columns)
    if arguments.all or any(asked) or (arguments.runs, arguments.run_ids) != (None, None):
        return _fleet(arguments)
    if arguments.watch:
        with _opened(arguments.output) as out:
            return status(arguments.uri, as_json=arguments.json, watch=True, out=out)
    text = io.StringIO()
    status(arguments.uri, as_json=arguments.json, out=text)
    deliver(text.getvalue(), arguments.output)
    return 0


def _fleet(arguments: argparse.Namespace) -> int:
    from job.status.all_runs import fleet_status
    from job.status.table import Selection

    if not arguments.all:
        raise SettingsError(
            "--runs, --run-ids, --prefix, --status, --sort and --columns need --all"
        )
    if arguments.watch:
        raise SettingsError("--watch is of one run: leave --all out, or run it in watch(1)")
    selection = Selection.of(arguments.status, arguments.sort or "status", arguments.columns)
    runs, text = _named(arguments), io.StringIO()
    fleet_status(
        arguments.uri,
        selection,
        prefix=arguments.prefix,
        runs=runs,
        as_json=arguments.json,
        out=text,
    )
    # A pod's log is read by people, who look for the table there.
    deliver(text.getvalue(), arguments.output, printed_too=not arguments.json)
    return 0


def _named(arguments: argparse.Namespace) -> list[str] | None:
    """The ids that were asked for, if any were."""
    from job.status.named import run_ids

    given = {"--runs": arguments.runs, "--run-ids": arguments.run_ids, "--prefix": arguments.prefix}
    together = [name for name, value in given.items() if value not in (None, "")]
    if len(together) > 1:
        raise SettingsError(f"{' and '.join(together)} don't go together: give one of them")
    if arguments.runs is not None:
        text = _text_of(arguments.runs, "--runs")
        return run_ids(text, f"--runs {arguments.runs}", arguments.uri)
    if arguments.run_ids is not None:
        return run_ids(arguments.run_ids, "--run-ids", arguments.uri)
    return None


def plan_command(arguments: argparse.Namespace) -> int:
    """`forge-job plan`: its exit code."""
    from job.plan import plan, write
    from job.redact import redact

    try:
        runs = plan(_runs_text(arguments.runs), arguments.promote)
        if arguments.into is not None:
            write(runs, arguments.into)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.promote and any(run.never_promoted for run in runs):
        told = "no gate is set (FORGE_GATE_MIN_EXACT, FORGE_GATE_MIN_GAIN): not all can be promoted"
        print(told, file=sys.stderr)
    items = [run.as_item() for run in runs]
    lines = [redact(f"{item['run-id']}  {item['settings']}") for item in items]
    print(json.dumps(items) if arguments.json else "\n".join(lines))
    return 0


def _runs_text(given: str) -> str:
    """No argument may be longer than 128 KiB on Linux; a file may."""
    if given == _STDIN or given.startswith("@"):
        return _text_of(given.removeprefix("@"), "the runs")
    return given


def _text_of(source: str, where: str) -> str:
    """Of a file, or of stdin. Raises `SettingsError` where it can't be read."""
    try:
        data = sys.stdin.buffer.read() if source == _STDIN else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        found = f"{source} can't be read: {error.strerror}"
        raise SettingsError(Problem(where, found, "give a file, or - for stdin")) from error
    except UnicodeDecodeError as error:
        raise SettingsError(Problem(where, f"{source} is not UTF-8: {error}")) from error


def deliver(text: str, path: Path | None, *, printed_too: bool = False) -> None:
    """Print `text`, or make it the content of `path`, which is left as it was until the text is
    there. Raises `SettingsError` where the file can't be written."""
    if path is not None:
        try:
            path.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise _unwritable(path, error) from error
    if path is None or printed_too:
        print(encodable(text, sys.stdout), end="")


def _opened(path: Path | None) -> AbstractContextManager[TextIO]:
    """For what goes on and on. Raises `SettingsError` where the file can't be written."""
    if path is None:
        return nullcontext(sys.stdout)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"--output {path}: {error.strerror}")
