"""`forge-job status <output> --all`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any, TextIO

from job.errors import AccessDenied, Problem, SettingsError
from job.fleet.records import Row, scan
from job.fleet.table import Selection, table, totals
from job.ledger import RECORD_KEY
from job.promotion import is_named, read_promoted
from job.storage import Storage, open_storage


def fleet_status(
    uri: str, selection: Selection, *, prefix: str = "", as_json: bool, out: TextIO
) -> int:
    """Print one line for each run below `uri` whose id begins with `prefix`, as a table with
    totals or as JSON lines; returns 0.

    Raises `SettingsError` where there is no run at all, and what storage raises.
    """
    storage = open_storage(uri)
    found = list(scan(storage, prefix=prefix))
    rows = [row for row in found if row is not None]
    promoted = _promoted(storage)
    rows = [replace(row, promoted=is_named(promoted, row.run_id)) for row in rows]
    if not rows:
        raise SettingsError(
            Problem(
                storage.uri,
                f"there are no runs {f'{prefix}… ' if prefix else ''}here (no folder with a "
                f"{RECORD_KEY})",
                "give the FORGE_OUTPUT_URI that the runs share",
            )
        )
    chosen = selection.chosen(rows)
    if as_json:
        for row in chosen:
            print(json.dumps(_as_dict(row, selection.columns)), file=out)
        return 0
    print(table(chosen, selection.columns), file=out)
    others = len(found) - len(rows)
    note = f"; {others} other folders hold no run" if others else ""
    print(f"\n{totals(chosen)}{note}", file=out)
    return 0


def _promoted(storage: Storage) -> dict[str, Any] | None:
    try:
        return read_promoted(storage)
    except AccessDenied:
        return None  # the runs are what was asked for


def _as_dict(row: Row, columns: tuple[str, ...]) -> dict[str, Any]:
    """Of the settings only those that were asked for: they are most of a record."""
    return {**asdict(row), "settings": {name: row.settings.get(name) for name in columns}}
