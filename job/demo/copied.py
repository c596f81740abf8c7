"""The copy of the demo's run on this machine: what it may replace, and how it gets there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from job.errors import JobError, Problem, SettingsError
from job.ledger import RECORD_KEY, read_record
from job.storage import Storage, open_storage

BUCKET: Final = "forge-demo"
RUN_ID: Final = "demo"
OUTPUT_URI: Final = f"s3://{BUCKET}/runs"


def refuse_foreign(output: Path) -> None:
    """The copy replaces what is in `output`: only an earlier copy is nobody's loss.

    Makes the folder. Raises `SettingsError` where it can't, and where there is anything else.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not any(output.iterdir()) or _is_copy(output):
            return
        found = "is not empty, and holds no earlier copy of the demo's run"
    except OSError as error:
        found = f"is no folder for a copy of the run: {error.strerror}"
    hint = "its content would be deleted: name a new or an empty folder"
    raise SettingsError(Problem(f"--output {output}", found, hint))


def copy(run: Storage, output: Path) -> None:
    """Replace the content of `output` by the whole run."""
    for path in output.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    # Its record first: by it half a copy is known as one.
    keys = sorted((info.key for info in run.list()), key=lambda key: key != RECORD_KEY)
    for key in keys:
        path = output / key
        path.parent.mkdir(parents=True, exist_ok=True)
        run.download(key, path)


def _is_copy(output: Path) -> bool:
    try:
        found = read_record(open_storage(str(output.absolute())))
    except JobError:
        return False
    if found is None:
        return False
    record = found[0]
    return record.run_id == RUN_ID and record.settings.get("output_uri") == OUTPUT_URI
