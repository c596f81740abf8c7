"""`status`: of one run, or of many."""

from __future__ import annotations

import argparse
import io

from job.commands.output import deliver, opened, text_of
from job.errors import SettingsError


def command(arguments: argparse.Namespace) -> int:
    from job.status import status

    asked = (arguments.status, arguments.prefix, arguments.sort, arguments.columns)
    if arguments.all or any(asked) or (arguments.runs, arguments.run_ids) != (None, None):
        return _fleet(arguments)
    if arguments.watch:
        with opened(arguments.output) as out:
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
        text = text_of(arguments.runs, "--runs")
        return run_ids(text, f"--runs {arguments.runs}", arguments.uri)
    if arguments.run_ids is not None:
        return run_ids(arguments.run_ids, "--run-ids", arguments.uri)
    return None
