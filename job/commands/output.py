"""What commands read and where their text goes: stdout, stderr, a file."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final, TextIO

from job.errors import Problem, SettingsError
from job.redact import Redactor, redact
from job.terminal import encodable, harmless

STDIN: Final = "-"


def tell(text: str) -> None:
    """A line, or lines, of a command's result."""
    print(encodable(harmless(redact(text)), sys.stdout))


def tell_json(data: Any) -> None:
    """A command's result for machines."""
    print(json.dumps(Redactor(os.environ).plain(data)))


def complain(text: str) -> None:
    """What went wrong; results alone go to stdout."""
    print(harmless(redact(text)), file=sys.stderr)


def text_of(source: str, where: str) -> str:
    """Of a file, or of stdin. Raises `SettingsError` where it can't be read."""
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        found = f"{source} can't be read: {error.strerror}"
        raise SettingsError(Problem(where, found, "give a file, or - for stdin")) from error
    except UnicodeDecodeError as error:
        raise SettingsError(Problem(where, f"{source} is not UTF-8: {error}")) from error


def deliver(text: str, path: Path | None, *, printed_too: bool = False) -> None:
    """Print `text`, or make it the content of `path`, which is left as it was until the text is
    there. Raises `SettingsError` where the file can't be written."""
    if path is not None:
        try:
            path.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            raise _unwritable(path, error) from error
    if path is None or printed_too:
        print(encodable(text, sys.stdout), end="")


def opened(path: Path | None) -> AbstractContextManager[TextIO]:
    """For what goes on and on. Raises `SettingsError` where the file can't be written."""
    if path is None:
        return nullcontext(sys.stdout)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def open_standard_streams() -> None:
    """Those that the process was started without go nowhere. Else a file that is opened later gets
    the number of one, and with it what C code says on stderr; and Python has None for it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _unwritable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"--output {path}: {error.strerror}")
