"""The folders that a run writes into, and whether there is room for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from job.engines import cache_folders
from job.errors import Problem, SettingsError
from job.preflight.checks import Finding
from job.preflight.doctor.needs import Needs
from job.preflight.doctor.wanted import Wanted, existing

_PROBE_BYTES: Final = 4096
_COMFORT: Final = 1.25
"""Assumed: how far off the estimate may be."""


def folders(wanted: Wanted) -> str | Finding:
    """Write and delete a file in each. Raises `SettingsError` with every one that takes none."""
    needed, wished = _places(wanted)
    hint = "mount a volume there that this user may write, or point the variable at one"
    problems = [
        Problem(name, refusal, hint) for name in needed if (refusal := _refusal(needed[name]))
    ]
    if problems:
        raise SettingsError(problems)
    refused = [f"{name}: {refusal}" for name in wished if (refusal := _refusal(wished[name]))]
    if refused:
        return Finding("warning", "; ".join(refused) + " (a library may want to keep things there)")
    return f"{wanted.work_dir} takes files, and so do {', '.join([*needed, *wished][1:])}"


def _places(wanted: Wanted) -> tuple[dict[str, Path], dict[str, Path]]:
    """Folders by their variables: those a run can't do without, and the others."""
    work_dir = wanted.work_dir
    # A container runtime sets HOME to this where the image says nothing.
    home = Path(os.environ.get("HOME") or "/")
    hub = {"HF_HOME": Path(os.environ.get("HF_HOME") or home / ".cache" / "huggingface")}
    temporary = {"TMPDIR": Path(os.environ.get("TMPDIR") or tempfile.gettempdir())}
    needed = {"FORGE_WORK_DIR": work_dir} | temporary | cache_folders(work_dir)
    if wanted.takes_from_hub:
        return needed | hub, {"HOME": home}
    return needed, {"HOME": home} | hub


def _refusal(folder: Path) -> str | None:
    """Why nothing can be written below `folder`; None if it can."""
    try:
        place = existing(folder)
        with tempfile.NamedTemporaryFile(prefix=".forge-doctor-", dir=place) as file:
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
    except OSError as error:
        return f"{folder} can't be written: {error.strerror}"
    return None


def disk(wanted: Wanted, needs: Needs | None) -> str | Finding:
    """Raises `SettingsError` where the volume is too small.

    The size limit of an emptyDir is the kubelet's affair and can't be seen from inside.
    """
    work_dir = wanted.work_dir
    free = shutil.disk_usage(existing(work_dir)).free + _bytes_kept(wanted.kept_dir)
    there = f"{free / 1e9:.1f} GB are free for {work_dir}"
    if needs is None:
        return Finding("not checked", f"{there}; what is needed depends on the settings")
    said = f"{there}, about {needs.disk / 1e9:.1f} GB are needed"
    if free < needs.disk:
        hint = "give FORGE_WORK_DIR a larger volume (an emptyDir: also its sizeLimit)"
        raise SettingsError(Problem("FORGE_WORK_DIR", said, hint))
    if needs.download is None or needs.checkpoint is None:
        return Finding("not checked", f"{said} besides the model, whose size is not known here")
    if free < _COMFORT * needs.disk:
        return Finding("warning", f"{said}: give FORGE_WORK_DIR a larger volume")
    return f"{said} (an emptyDir's sizeLimit can't be seen from here)"


def _bytes_kept(folder: Path | None) -> int:
    """Bytes of what an earlier attempt has left there: it is used again or removed."""
    paths = folder.rglob("*") if folder else ()
    return sum(path.lstat().st_size for path in paths if not path.is_dir())
