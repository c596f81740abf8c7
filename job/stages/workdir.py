"""The run's folder on the node's work volume, or a temporary one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job.config import Settings
from job.errors import OutOfDisk, Problem, SettingsError
from job.storage import disk_is_full


@contextmanager
def work_dir(settings: Settings) -> Iterator[Path]:
    """Raises `SettingsError` where it can't be written, `OutOfDisk` where it is full."""
    if settings.work_dir is None:
        with tempfile.TemporaryDirectory(prefix="forge-job-") as temporary:
            yield Path(temporary)
        return
    folder = settings.work_dir / settings.run_id
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
    except OSError as error:
        problem = Problem("FORGE_WORK_DIR", f"{folder} can't be written: {error.strerror}")
        raise (OutOfDisk if disk_is_full(error) else SettingsError)(problem) from error
    yield folder
