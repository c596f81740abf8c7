"""The run's folder on the node's work volume, or a temporary one."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from job.config import Settings
from job.errors import OutOfDisk, Problem, SettingsError
from job.storage import disk_is_full

_PREFIX: Final = "attempt-"


def run_folder(volume: Path, settings: Settings) -> Path:
    """One for each run: its id alone may name others too, in another output."""
    return volume / f"{settings.run_id}-{_short(settings.run_uri)}"


def attempt_name(number: int, created_at: str) -> str:
    """Of a folder for what one attempt alone may touch. Numbers begin anew where a run does, so
    the name also says when the run that the attempt is of began (`created_at` of its record)."""
    return f"{_PREFIX}{number:03d}-{_short(created_at)}"


def attempt_folders(folder: Path, created_at: str) -> dict[Path, int | None]:
    """Those in `folder`, the newest first, with their numbers; at the end those of attempts at a
    run that is gone, and of earlier releases, with None."""
    found = {path: _number(path.name, created_at) for path in folder.glob(f"{_PREFIX}*")}
    return dict(sorted(found.items(), key=lambda item: item[1] or 0, reverse=True))


def _number(name: str, created_at: str) -> int | None:
    number = name.removeprefix(_PREFIX).partition("-")[0]
    of_this_run = number.isdecimal() and name == attempt_name(int(number), created_at)
    return int(number) if of_this_run else None


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextmanager
def work_dir(settings: Settings) -> Iterator[Path]:
    """Raises `SettingsError` where it can't be written, `OutOfDisk` where it is full."""
    if settings.work_dir is None:
        with tempfile.TemporaryDirectory(prefix="forge-job-") as temporary:
            yield Path(temporary)
        return
    folder = run_folder(settings.work_dir, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        problem = Problem("FORGE_WORK_DIR", f"{folder} can't be written: {error.strerror}")
        raise (OutOfDisk if disk_is_full(error) else SettingsError)(problem) from error
    yield folder
