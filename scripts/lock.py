"""Writes the locked requirement sets (`make lock`; `--upgrade` takes the newest that fit).

    requirements/cpu.txt   the project and its CPU engine, without torch, for the CPU image
    requirements/dev.txt   what the demo, the tests and the tools need beside cpu.txt
    requirements/gpu.txt   the project and its GPU engine, torch included, for the GPU image

All come from pyproject.toml with requirements/pins.txt as constraints, and carry the hash of
every file. uv resolves from index metadata alone: no CUDA wheel is downloaded. The index is the
environment's own and is not written into the files.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
REQUIREMENTS: Final = ROOT / "requirements"

_OLDEST_PYTHON: Final = "3.11"
_GPU_PYTHONS: Final = (_OLDEST_PYTHON, "3.12")
_GPU_PLATFORM: Final = "x86_64-manylinux_2_28"
_HEADER: Final = "# Written by scripts/lock.py (`make lock`) from pyproject.toml and pins.txt.\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="forget the versions in the files")
    upgrade = ["--upgrade"] if parser.parse_args(argv).upgrade else []
    try:
        _lock_cpu(upgrade)
        _lock_dev(upgrade)
        _lock_gpu(upgrade)
    except subprocess.CalledProcessError as error:
        print(f"uv could not resolve the set: exit code {error.returncode}", file=sys.stderr)
        return 1
    return 0


def _lock_cpu(options: Sequence[str]) -> None:
    """One file for every platform and Python; `--universal` adds markers where they differ."""
    _compile_universal("cpu.txt", "--extra=cpu", *options)


def _lock_dev(options: Sequence[str]) -> None:
    """Resolved with cpu.txt as it is; what stands there is left out here."""
    extras = (f"--extra={name}" for name in ("cpu", "demo", "dev"))
    _compile_universal("dev.txt", *extras, "--constraints=requirements/cpu.txt", *options)
    shared = set(_entries((REQUIREMENTS / "cpu.txt").read_text()))
    target = REQUIREMENTS / "dev.txt"
    own = [entry for entry in _entries(target.read_text()) if entry not in shared]
    target.write_text(_HEADER + "".join(own))


def _entries(text: str) -> list[str]:
    """Each requirement with its hashes."""
    return re.findall(r"^[a-z0-9].*\n(?:    --hash.*\n)+", text, flags=re.MULTILINE)


def _compile_universal(output: str, *arguments: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        without = Path(folder) / "excludes.txt"
        without.write_text("torch\n")
        _compile(
            output,
            "pyproject.toml",
            "requirements/torch-deps.in",
            "--universal",
            "--fork-strategy=fewest",
            f"--excludes={without}",
            *arguments,
        )


def _lock_gpu(options: Sequence[str]) -> None:
    """One file for both Pythons: resolved for the older, then checked against the newer.

    Raises `subprocess.CalledProcessError` where the newer Python needs another set.
    """
    platform = ("pyproject.toml", "--extra=gpu", f"--python-platform={_GPU_PLATFORM}")
    _compile("gpu.txt", *platform, *options)
    for python in _GPU_PYTHONS[1:]:
        with tempfile.TemporaryDirectory() as folder:
            other = Path(folder) / "gpu.txt"
            constraint = f"--constraints={REQUIREMENTS / 'gpu.txt'}"
            _compile(str(other), *platform, constraint, python=python)
            if other.read_text() != (REQUIREMENTS / "gpu.txt").read_text():
                print(f"gpu.txt does not fit Python {python}", file=sys.stderr)
                raise subprocess.CalledProcessError(1, "uv")


def _compile(output: str, *arguments: str, python: str = _OLDEST_PYTHON) -> None:
    """Run `uv pip compile` on `arguments` and write `output` (relative to requirements/)."""
    target = REQUIREMENTS / output
    command = [sys.executable, "-m", "uv", "pip", "compile", *arguments]
    command += ["--constraints=requirements/pins.txt", f"--output-file={target}"]
    command += [f"--python-version={python}", "--no-python-downloads", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True)
    target.write_text(_HEADER + target.read_text().removeprefix(_HEADER))


if __name__ == "__main__":
    sys.exit(main())
