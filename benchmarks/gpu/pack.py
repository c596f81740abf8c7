"""One archive with what the suite needs and a machine that has torch and transformers lacks.

    python -m benchmarks.gpu.pack --python 3.12 --cuda 130 --out site.tgz

For a GPU machine without a network, which takes little at a time. The locked versions are
downloaded for Linux on x86-64, and what no CUDA machine of that version uses is left out: 50 MB
remain of 170. There, `tar xzf site.tgz -C /tmp && export PYTHONPATH=/tmp/site`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[2]
THERE: Final = ("torch", "torchvision", "triton", "transformers", "accelerate", "pyarrow", "pandas")
THERE_TOO: Final = ("pillow", "matplotlib", "sentencepiece", "protobuf")
"""What a machine for deep learning has, with all that it needs; `--there` says otherwise."""
BESIDE: Final = ("pydantic",)
"""Carried though something on the list above asks for it: not every version of that does."""
TOO_LARGE: Final = ("xformers",)
"""Unsloth's attention falls back to torch's own."""
TESTS: Final = ("moto[s3]", "flask", "flask-cors", "pytest", "pytest-timeout")
"""Beside the GPU image's lock: the embedded S3 server, and what runs the contract tests."""
GLIBC: Final = ("2_39", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")
SERVICES: Final = ("s3", "sts", "sso", "sso-oidc", "signin")
"""Of AWS; botocore describes four hundred."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default="3.12", help="the machine's version")
    parser.add_argument("--cuda", default="130", help="of the machine's torch, as in cu130")
    parser.add_argument("--there", nargs="+", default=[*THERE, *THERE_TOO], help="packages it has")
    parser.add_argument("--out", type=Path, default=Path("site.tgz"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        install(carried(arguments.there), site, arguments.python)
        strip(site, arguments.cuda)
        with tarfile.open(arguments.out, "w:gz") as archive:
            archive.add(site, "site")
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
    return 0


def carried(there: Iterable[str]) -> list[str]:
    """Requirements with the versions of the locks."""
    pins = _pins("dev.txt") | _pins("cpu.txt") | _pins("gpu.txt")
    left_out = closure(there) - closure(BESIDE) | set(TOO_LARGE)
    wanted = set(_pins("gpu.txt")) | closure(TESTS)
    return sorted(
        f"{name}=={pins[name]}"
        for name in wanted - left_out
        if name in pins and not name.startswith(("nvidia-", "cuda-"))
    )


def closure(names: Iterable[str]) -> set[str]:
    """Those packages and what they need, by the metadata of what is installed here."""
    found: set[str] = set()
    left = [Requirement(name) for name in names]
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        extras = wanted.extras or {""}
        if name in found and not wanted.extras:
            continue
        found.add(name)
        left += [
            needed
            for needed in map(Requirement, _requires(name))
            if needed.marker is None
            or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return found


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []  # of the GPU set: not here


def install(requirements: list[str], site: Path, python: str) -> None:
    """Wheels for that Python on Linux; nothing is built."""
    platforms = [f"manylinux_{version}_x86_64" for version in GLIBC]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64", "any"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    command += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    for platform in platforms:
        command += ["--platform", platform]
    subprocess.run([*command, "--target", str(site), *requirements], check=True)


def strip(site: Path, cuda: str) -> None:
    """What no run on that machine opens: other cards' kernels, other services, a user interface."""
    kernels = re.compile(r"libbitsandbytes_(cuda|rocm|xpu)")
    for path in (site / "bitsandbytes").glob("libbitsandbytes_*.so"):
        if kernels.match(path.name) and path.stem != f"libbitsandbytes_cuda{cuda}":
            path.unlink()
    for folder in (site / "botocore" / "data").iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    for name in ("studio", "unsloth_cli"):
        shutil.rmtree(site / name, ignore_errors=True)


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


if __name__ == "__main__":
    sys.exit(main())
