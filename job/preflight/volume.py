"""The work volume as `validate` looks at it: the run's machine may have one that this one lacks."""

from __future__ import annotations

import errno
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from job.config import Settings
from job.errors import Problem, SettingsError
from job.preflight.checks import NEEDED_ELSEWHERE, Check, Finding, check

_WHERE: Final = "FORGE_WORK_DIR"

_NO_PLACE: Final = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST)
"""No user may make such a folder, nor could a volume be mounted there: a file is in its place, or
a file system that takes none, as /proc. Missing rights or a full disk are this machine's."""


def volume_of(settings: Settings) -> Check | None:
    """What becomes of `FORGE_WORK_DIR` here; None where each attempt has a new folder."""
    folder = settings.work_dir
    return check("volume", partial(_look_at, folder)) if folder is not None else None


def _look_at(folder: Path) -> str | Finding:
    """Make it, and write there. Raises `SettingsError` where the run can't either."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return f"{folder} takes files"
    except OSError as error:
        found = f"{folder} can't be written: {error.strerror}"
        if error.errno in _NO_PLACE:
            hint = "name a folder that a volume is mounted at, or leave it unset"
            raise SettingsError(Problem(_WHERE, found, hint)) from error
        return Finding("warning", f"{_WHERE}: {found}; {NEEDED_ELSEWHERE}")
