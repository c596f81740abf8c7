"""`forge-job status <output> --all`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TextIO

from job.errors import AccessDenied, Problem, SettingsError
from job.ledger import RECORD_KEY
from job.promotion import PROMOTED_KEY, is_named, read_promoted
from job.redact import redact
from job.status.records import NOT_STARTED, Row, scan
from job.status.table import Selection, table, totals
from job.storage import Storage, open_storage
from job.terminal import printable


def fleet_status(
    uri: str,
    selection: Selection,
    *,
    prefix: str = "",
    runs: Sequence[str] | None = None,
    as_json: bool,
    out: TextIO,
) -> None:
    """Print one line for each run below `uri` whose id begins with `prefix`, or for each of `runs`
    whether it began or not, as a table with totals or as JSON lines.

    Raises `SettingsError` where there is no run at all, and what storage raises.
    """
    if "/" in prefix:
        found = f"'{prefix}' holds a '/', which no run id has"
        raise SettingsError(Problem("--prefix", found, "what is above the runs is part of the URI"))
    storage = open_storage(uri)
    found_rows = list(scan(storage, prefix=prefix, runs=runs))
    rows = [row for row in found_rows if row is not None]
    if not rows and runs is None:
        raise _no_run(storage, prefix)
    promoted, unknown = _promoted(storage)
    rows = [
        replace(row, promoted=None if unknown else is_named(promoted, row.run_id)) for row in rows
    ]
    warning = unknown or _nowhere(promoted, rows, prefix, runs)
    chosen = selection.chosen(rows)
    if as_json:
        for row in chosen:
            print(_as_json(row, selection.columns), file=out)
        if warning:
            print(redact(warning), file=sys.stderr)
        return
    print(table(chosen, selection.columns), file=out)
    others = len(found_rows) - len(rows)
    note = f"; {others} other folders hold no run" if others else ""
    print(f"\n{totals(chosen)}{note}", file=out)
    if warning:
        print(printable(redact(warning)), file=out)


def _no_run(storage: Storage, prefix: str) -> SettingsError:
    return SettingsError(
        Problem(
            storage.uri,
            f"there are no runs {f'{prefix}… ' if prefix else ''}here (no folder with a "
            f"{RECORD_KEY})",
            "give the FORGE_OUTPUT_URI that the runs share",
        )
    )


def _promoted(storage: Storage) -> tuple[dict[str, Any] | None, str]:
    """And why that is not known, where it isn't: the runs are what was asked for."""
    try:
        return read_promoted(storage), ""
    except AccessDenied as error:
        return None, f"which run is promoted is not known: {error}"


def _nowhere(
    promoted: Mapping[str, Any] | None,
    rows: Sequence[Row],
    prefix: str,
    runs: Sequence[str] | None,
) -> str:
    """Serving waits for an adapter that is gone: told where its run would have a row."""
    run_id = str((promoted or {}).get("run_id") or "")
    asked_for = run_id.startswith(prefix) if runs is None else run_id in runs
    if not run_id or not asked_for:
        return ""
    if any(row.promoted and row.status != NOT_STARTED for row in rows):
        return ""
    return f"{PROMOTED_KEY} names {run_id}, which is not here"


def _as_json(row: Row, columns: tuple[str, ...]) -> str:
    """Of the settings only those that were asked for: they are most of a record."""
    told = {**asdict(row), "settings": {name: row.settings.get(name) for name in columns}}
    try:
        return json.dumps(told, allow_nan=False)
    except ValueError:  # JSON has no NaN
        return json.dumps(json.loads(json.dumps(told), parse_constant=lambda _: None))
