"""`merged/`: an ordinary 16-bit model, for servers and converters that take no adapters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from job.checkpoint.manifest import files_of, sha256_file
from job.engines import read_config
from job.errors import JobError, OutOfDisk, Problem, SettingsError
from job.exports.room import problems as lacking_room
from job.lifecycle import StopToken
from job.publish import write_checksums
from job.redact import redact

MERGED_KEY: Final = "merged/"
_TOKENIZER: Final = (
    "tokenizer*",
    "chat_template*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)
_POLL_SECONDS: Final = 0.2
_KILLED: Final = -9


def build(
    base: Path,
    adapter: Path,
    into: Path,
    stop: StopToken,
    *,
    card: str,
    trust_remote_code: bool,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Merge, with the adapter's tokenizer and template beside the weights, a card, and the digests
    of all. `alive` is called as it goes on.

    Raises `OutOfDisk` or `SettingsError` where there is no room, `JobError` where merging fails,
    and what `stop` raises.
    """
    shutil.rmtree(into, ignore_errors=True)
    _refuse_without_room(base, into.parent)
    trust = "trust" if trust_remote_code else "no"
    merging = ["-m", "job.exports.merge", str(base), str(adapter), str(into), trust]
    run_python("merging", merging, stop, into, alive)
    copy_tokenizer(adapter, into)
    (into / "README.md").write_text(redact(card), encoding="utf-8")
    paths = {path.relative_to(into).as_posix(): path for path in files_of(into)}
    write_checksums(into, {name: sha256_file(path, alive) for name, path in paths.items()})


def _refuse_without_room(base: Path, work_dir: Path) -> None:
    weights = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    config = read_config(base)
    if config.get("dtype", config.get("torch_dtype")) == "float32":
        weights //= 2
    found = list(lacking_room(weights, work_dir))
    if any(problem.where == "FORGE_WORK_DIR" for problem in found):
        raise OutOfDisk(found)
    if found:
        raise SettingsError(found)


def copy_tokenizer(folder: Path, into: Path) -> None:
    """The tokenizer's files and the chat template."""
    for pattern in _TOKENIZER:
        for path in folder.glob(pattern):
            shutil.copy(path, into / path.name)


def run_python(
    what: str,
    arguments: list[str],
    stop: StopToken,
    into: Path,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """A process of its own with our interpreter, without a GPU and without the hub. `alive` is
    called whenever it has said something or what is in `into` has changed: one that hangs does
    neither. Raises `JobError` with its last words where it fails, and what `stop` raises."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        # The trained model holds the GPU.
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = _last_words(process, stop, into, alive)
        finally:
            process.kill()
    if process.returncode == _KILLED:
        hint = "raise the memory limit and start the run again: only its exports are missing"
        raise JobError(Problem("FORGE_EXPORT", f"{what} was killed, out of memory", hint))
    if process.returncode:
        reason = redact(said) or f"exit {process.returncode}"
        raise JobError(Problem("FORGE_EXPORT", f"{what} failed: {reason}"))


def _last_words(
    process: subprocess.Popen[str], stop: StopToken, into: Path, alive: Callable[[], None]
) -> str:
    """The last line on stderr, once the process has ended."""
    seen = (0, 0)
    while True:
        try:
            _, said = process.communicate(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired as so_far:
            stop.check()
            before, seen = seen, (len(so_far.stderr or ""), _bytes_in(into))
            if seen != before:
                alive()
        else:
            return said.strip().rpartition("\n")[2]


def _bytes_in(folder: Path) -> int:
    """Of a folder that another process writes to: files may go while it is looked at."""
    size = 0
    for path in folder.glob("**/*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
