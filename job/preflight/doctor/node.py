"""The node's card, its driver, and a compiler for the kernels that are made at run time."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from job.engines import card
from job.errors import Problem, SettingsError
from job.memory import GIB
from job.preflight.checks import Finding
from job.preflight.doctor.wanted import existing

_LEAST_DRIVER: Final[Mapping[int, int]] = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version (NVIDIA, "CUDA Compatibility", minor version compatibility, table 1).
Newer drivers serve older CUDA."""

_FREE_SHARE: Final = 0.9
"""Assumed: a card of which more is taken before the run begins is shared with somebody."""

_SOURCE: Final = "#include <Python.h>\nint forge_doctor(void) { return 0; }\n"
_COMPILE_SECONDS: Final = 60


def gpu(needed: bool) -> str | Finding:
    """Raises `SettingsError` for a card that is missing and `needed`, or can't be used."""
    try:
        found = card()
    except ImportError as error:
        hint = "use the GPU image, or install the gpu extra"
        raise SettingsError(Problem("GPU", f"torch can't be imported: {error}", hint)) from error
    if found is None:
        if needed:
            hint = "ask for nvidia.com/gpu: 1 on a node that has one, or set FORGE_ENGINE=reference"
            raise SettingsError(Problem("GPU", "torch sees no card", hint))
        return Finding("not checked", "torch sees no card: the reference engine takes the CPU")
    capability = ".".join(map(str, found.capability))
    said = (
        f"{found.name}, {found.total_bytes / GIB:.1f} GiB ({found.free_bytes / GIB:.1f} free), "
        f"compute capability {capability}"
    )
    if found.free_bytes < _FREE_SHARE * found.total_bytes:
        return Finding("warning", f"{said}: another process is on the card; the run may not fit")
    return said


def driver(version_file: Path, cuda: str | None, *, needed: bool, works: bool) -> str | Finding:
    """The kernel's driver against the CUDA that torch is built for. Raises `SettingsError`.

    `works` says that torch has used the card. The driver is then good enough, however that comes:
    a forward compatibility package, or a sandbox without the file (gVisor, WSL).
    """
    try:
        text = version_file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return _no_driver(f"{version_file}: {error.strerror}", needed=needed and not works)
    told = re.search(r"Kernel Module.*?\s(\d+)(\.[\d.]+)", text)
    if told is None:
        return Finding("not checked", f"{version_file} names no version: {text.strip()[:100]!r}")
    said = f"driver {told[1]}{told[2]}"
    if cuda is None:
        return Finding("not checked", f"{said}; torch is not there, or is built for the CPU")
    least = _LEAST_DRIVER.get(int(cuda.partition(".")[0]))
    if least is None:
        return Finding("not checked", f"{said}; what CUDA {cuda} needs is not known here")
    if int(told[1]) >= least:
        return f"{said}, CUDA {cuda} needs {least} or newer"
    found = f"{said} is too old: CUDA {cuda} needs {least} or newer"
    if works:
        return Finding("warning", f"{found}; torch uses the card all the same")
    if not needed:
        return Finding("warning", f"{found}; the reference engine takes the CPU")
    hint = "update the node's driver, or use an image built for an older CUDA"
    raise SettingsError(Problem("NVIDIA driver", found, hint))


def _no_driver(found: str, *, needed: bool) -> Finding:
    if needed:
        hint = "install the driver on the node, and run the pod with the NVIDIA container runtime"
        raise SettingsError(Problem("NVIDIA driver", found, hint))
    return Finding("not checked", found)


def cuda_of_torch() -> str | None:
    """The CUDA version that the installed torch is built for; None without one.

    Read from its files: torch takes seconds to import, and a build that can't be imported here is
    one of the things to tell.
    """
    try:
        path = Path(str(distribution("torch").locate_file("torch/version.py")))
        text = path.read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError):
        return None
    found = re.search(r"""^cuda\b[^=\n]*=\s*['"]([\d.]+)['"]""", text, re.MULTILINE)
    return found[1] if found else None


def compiler(work_dir: Path, *, needed: bool) -> str | Finding:
    """Compile and load a library on the work volume, as Triton does for its first kernel.

    Raises `SettingsError` where that fails and is `needed`.
    """
    try:
        return _compiled(work_dir)
    except SettingsError as error:
        if needed:
            raise
        return Finding("warning", f"{error}; only a GPU needs one")


def _compiled(work_dir: Path) -> str:
    command = _c_compiler()
    try:
        with tempfile.TemporaryDirectory(prefix="forge-doctor-", dir=existing(work_dir)) as folder:
            library = _compile(command, Path(folder))
            _load(library)
    except OSError as error:
        raise _no_compiler(f"{command} did not run: {error}") from error
    return f"{command} compiles a library on the work volume, and it can be loaded there"


def _c_compiler() -> str:
    """The one that Triton takes (triton/runtime/build.py): not `cc`, unless `CC` names it."""
    found = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        raise _no_compiler("there is no gcc or clang in PATH, and CC is not set")
    return found


def _compile(command: str, folder: Path) -> Path:
    source, library = folder / "doctor.c", folder / "doctor.so"
    source.write_text(_SOURCE, encoding="utf-8")
    # Triton's stubs include Python.h, which images without the development files don't have.
    include = sysconfig.get_paths()["include"]
    arguments = [command, str(source), "-shared", "-fPIC", f"-I{include}", "-o", str(library)]
    try:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _no_compiler(f"{command} took more than {_COMPILE_SECONDS} s") from error
    if done.returncode != 0 or not library.exists():
        said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()
        first = next((line for line in said if "error" in line), said[0])
        raise _no_compiler(f"{command} can't compile: {first}")
    return library


def _load(library: Path) -> None:
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        hint = "mount the work volume without noexec"
        found = f"what was compiled can't be loaded: {error}"
        raise SettingsError(Problem("C compiler", found, hint)) from error


def _no_compiler(found: str) -> SettingsError:
    hint = "install gcc and Python's headers (python3-dev) in the image, or name a compiler in CC"
    return SettingsError(Problem("C compiler", found, hint))
