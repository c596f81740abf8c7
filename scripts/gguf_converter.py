"""Puts llama.cpp's `convert_hf_to_gguf.py` into the demo's cache, for the tests of GGUF exports.

The converter has no package. llama-cpp-python's source distribution (77 MB) carries it, so that
whoever reaches a package index can run the tests; 2 MB of it are kept. Nothing is built or
installed. Prints the script's path.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

_PACKAGE: Final = "llama-cpp-python==0.3.36"
_SHA256: Final = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_WITHIN: Final = "vendor/llama.cpp/"
_WANTED: Final = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")
FOLDER: Final = Path(__file__).resolve().parent.parent / ".cache/forge-job/llama.cpp-0.3.36"
SCRIPT: Final = FOLDER / "convert_hf_to_gguf.py"


def main() -> int:
    if not SCRIPT.exists():
        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
            archive = _downloaded(Path(scratch))
            if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
                print(f"{archive.name} is not the file that was tested", file=sys.stderr)
                return 1
            _unpack(archive, Path(scratch) / "unpacked")
            (Path(scratch) / "unpacked").rename(FOLDER)
    print(SCRIPT)
    return 0


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    subprocess.run([*command, "llama-cpp-python", _PACKAGE, "--dest", str(folder)], check=True)
    return next(folder.glob("*.tar.gz"))


def _unpack(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as source:
        for member in source:
            _, found, name = member.name.partition(_WITHIN)
            if found and member.isfile() and name.startswith(_WANTED):
                member.name = name
                source.extract(member, into, filter="data")


if __name__ == "__main__":
    sys.exit(main())
