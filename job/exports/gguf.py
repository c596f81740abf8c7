"""`gguf/`: the merged model as one file for llama.cpp and what is built on it.

By llama.cpp's own converter, `convert_hf_to_gguf.py`, which has no package: whoever wants this puts
it into the image. It runs with our interpreter, in a process of its own.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from job.checkpoint.manifest import sha256_file
from job.config import Settings
from job.errors import JobError, Problem
from job.exports.merged import copy_tokenizer, run_python
from job.lifecycle import StopToken
from job.publish import write_checksums

GGUF_KEY: Final = "gguf/"
_SCRIPT: Final = "convert_hf_to_gguf.py"
_WHERE: Final = "FORGE_GGUF_CONVERTER"
_HINT: Final = (
    "name the script in a checkout of llama.cpp, with what its "
    "requirements-convert_hf_to_gguf.txt asks for installed"
)
_HEADER: Final = struct.Struct("<4sIQQ")
"""Of a GGUF file: magic, version, number of tensors, number of metadata (ggml/docs/gguf.md)."""
_MAGIC: Final = b"GGUF"


def problems(settings: Settings, base: Path, tokenizer: Path) -> Iterator[Problem]:
    """What the converter itself has against this model, found by converting its vocabulary: its
    requirements, the architecture, the way the tokenizer splits text. No weights are needed.

    `base` is the folder with the configuration of the model that is merged into.
    """
    script = converter(settings)
    if script is None or not script.is_file():
        named = settings.gguf_converter
        found = f"there is no file {named}" if named else f"there is no {_SCRIPT} on PATH"
        yield Problem(_WHERE, found, _HINT)
        return
    with tempfile.TemporaryDirectory(prefix="gguf-") as name:
        folder = Path(name)
        shutil.copy(base / "config.json", folder)
        copy_tokenizer(tokenizer, folder)
        try:
            _convert(script, settings, folder, folder / "vocabulary.gguf", StopToken(), vocab=True)
        except JobError as error:
            found = "; ".join(problem.found for problem in error.problems)
            hint = f"{script.name} has to know the model and find its packages: {_HINT}"
            yield Problem("FORGE_EXPORT", found, hint)


def converter(settings: Settings) -> Path | None:
    """The script: the one that is named, or the one on `PATH`."""
    if settings.gguf_converter is not None:
        return settings.gguf_converter
    found = shutil.which(_SCRIPT)
    return Path(found) if found else None


def build(
    settings: Settings,
    merged: Path,
    into: Path,
    stop: StopToken,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Convert the merged model; the file and its digest are all that is in `into` afterwards.
    `alive` is called as it goes on.

    Raises `JobError` where the converter fails or leaves no model, and what `stop` raises.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    file = into / f"{settings.run_id}-{settings.gguf_type}.gguf"
    script = converter(settings)
    assert script is not None, "it was there when the run began"
    _convert(script, settings, merged, file, stop, alive)
    _refuse_what_is_no_model(file)
    write_checksums(into, {file.name: sha256_file(file, alive)})


def _convert(
    script: Path,
    settings: Settings,
    model: Path,
    file: Path,
    stop: StopToken,
    alive: Callable[[], None] = lambda: None,
    *,
    vocab: bool = False,
) -> None:
    arguments = [str(script), str(model), "--outfile", str(file)]
    arguments += ["--outtype", settings.gguf_type, "--model-name", settings.run_id]
    arguments += ["--vocab-only"] if vocab else []
    run_python("converting to GGUF", arguments, stop, file.parent, alive)


def _refuse_what_is_no_model(file: Path) -> None:
    head = b""
    if file.is_file():
        with file.open("rb") as written:
            head = written.read(_HEADER.size)
    magic, _, tensors, _ = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
    if magic != _MAGIC or not tensors:
        raise JobError(Problem("FORGE_EXPORT", f"{_SCRIPT} has left no model in {file.name}"))
