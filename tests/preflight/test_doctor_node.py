"""The card, its driver and the C compiler: those of this machine, and made-up ones."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from job.engines import Card, accelerator
from job.errors import SettingsError
from job.memory import GIB
from job.preflight.checks import Finding
from job.preflight.doctor import node

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 19 01:15:15 UTC 2023\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs@builder)\n"

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU that works is here")
NEEDS_GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


# -- the card -------------------------------------------------------------------------------------


@WITHOUT_GPU
def test_a_card_that_is_missing() -> None:
    with pytest.raises(SettingsError, match="GPU: torch sees no card") as refused:
        node.gpu(needed=True)
    assert refused.value.exit_code == 78
    found = node.gpu(needed=False)
    assert isinstance(found, Finding)
    assert found.result == "not checked"


@WITHOUT_GPU
@pytest.mark.parametrize("needed", [True, False])
def test_a_card_that_torch_can_not_use(
    needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(SettingsError, match="there is a card, but torch can't use it"):
        node.gpu(needed)


@WITHOUT_GPU
def test_a_card_that_fails_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 * GIB, 80 * GIB))
    with pytest.raises(SettingsError, match=r"GPU: a first use of the card failed: \w+"):
        node.gpu(needed=True)


def test_what_is_said_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card("NVIDIA L4", (8, 9), 22 * GIB, 21 * GIB)
    monkeypatch.setattr(node, "card", lambda: card)
    assert node.gpu(needed=True) == "NVIDIA L4, 22.0 GiB (21.0 free), compute capability 8.9"
    monkeypatch.setattr(node, "card", lambda: replace(card, free_bytes=12 * GIB))
    shared = node.gpu(needed=True)
    assert isinstance(shared, Finding)
    assert (shared.result, "another process is on the card" in shared.detail) == ("warning", True)


def test_an_image_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingsError, match=r"torch can't be imported.*install the gpu extra"):
        node.gpu(needed=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_that_works() -> None:
    found = node.gpu(needed=True)
    said = found.detail if isinstance(found, Finding) else found
    assert torch.cuda.get_device_name() in said
    assert "compute capability " in said
    driver = node.driver(accelerator.DRIVER, node.cuda_of_torch(), needed=True, works=True)
    assert "driver" in (driver.detail if isinstance(driver, Finding) else driver)
    assert node.cuda_of_torch() == torch.version.cuda


# -- the driver -----------------------------------------------------------------------------------


@pytest.fixture
def version_file(tmp_path: Path) -> Path:
    return tmp_path / "version"


def driver(version_file: Path, cuda: str | None, *, needed: bool, works: bool = False) -> str:
    found = node.driver(version_file, cuda, needed=needed, works=works)
    return f"{found.result}: {found.detail}" if isinstance(found, Finding) else f"ok: {found}"


@pytest.mark.parametrize("text", [CLOSED, OPEN])
@pytest.mark.parametrize(
    ("version", "cuda"), [("580.65.06", "13.0"), ("525.60.13", "12.8"), ("595.10", "12.8")]
)
def test_a_driver_that_serves(version_file: Path, text: str, version: str, cuda: str) -> None:
    version_file.write_text(text.format(version) + "GCC version:  gcc version 12.2.0\n")
    said = driver(version_file, cuda, needed=True)
    assert said.startswith(f"ok: driver {version}, CUDA {cuda} needs ")


@pytest.mark.parametrize("text", [CLOSED, OPEN])
@pytest.mark.parametrize(
    ("version", "cuda", "least"), [("570.133.20", "13.0", 580), ("470.82.01", "12.1", 525)]
)
def test_a_driver_that_is_too_old(
    version_file: Path, text: str, version: str, cuda: str, least: int
) -> None:
    version_file.write_text(text.format(version))
    with pytest.raises(SettingsError, match=f"needs {least} or newer .update the node's driver"):
        driver(version_file, cuda, needed=True)
    by_force = driver(version_file, cuda, needed=True, works=True)
    assert by_force.startswith(f"warning: driver {version} is too old")
    assert driver(version_file, cuda, needed=False).startswith("warning: ")


def test_a_driver_that_is_not_there(version_file: Path) -> None:
    with pytest.raises(SettingsError, match="install the driver on the node"):
        driver(version_file, "13.0", needed=True)
    assert driver(version_file, "13.0", needed=True, works=True).startswith("not checked: ")
    assert driver(version_file, "13.0", needed=False).startswith("not checked: ")


@pytest.mark.parametrize(
    ("text", "cuda", "why"),
    [
        (CLOSED.format("580.65.06"), None, "is built for the CPU"),
        (CLOSED.format("999.1"), "99.0", "CUDA 99.0 needs is not known"),
        ("who knows\n", "13.0", "names no version: 'who knows'"),
    ],
)
def test_a_driver_that_can_not_be_judged(
    version_file: Path, text: str, cuda: str | None, why: str
) -> None:
    version_file.write_text(text)
    said = driver(version_file, cuda, needed=True)
    assert said.startswith("not checked: ")
    assert why in said


def test_the_cuda_of_torch_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.cuda_of_torch() == torch.version.cuda
    info = tmp_path / "torch-9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.0\n")
    (tmp_path / "torch").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert node.cuda_of_torch() is None, "an installation without its files"
    version = "debug = False\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"
    (tmp_path / "torch" / "version.py").write_text(version)
    assert node.cuda_of_torch() == "13.0"


# -- the compiler ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder in PATH, empty, and no CC."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    return folder


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def real(path: Path) -> Path:
    """Under any name, this machine's gcc with the PATH that it needs."""
    return script(path, f'PATH={os.defpath}:/usr/local/bin exec gcc "$@"')


@NEEDS_GCC
@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_a_compiler_that_works(path: Path, tmp_path: Path, name: str) -> None:
    compiler = real(path / name)
    work = tmp_path / "work" / "run"
    found = node.compiler(work, needed=True)
    assert isinstance(found, str)
    assert found.startswith(f"{compiler} compiles a library on the work volume")
    assert list(tmp_path.iterdir()) == [path], "nothing is left behind"


@NEEDS_GCC
def test_cc_is_not_looked_for_but_may_be_named(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real(path / "cc")
    with pytest.raises(SettingsError, match=r"no gcc or clang in PATH, and CC is not set .install"):
        node.compiler(tmp_path, needed=True)
    monkeypatch.setenv("CC", "cc")
    assert node.compiler(tmp_path, needed=True).startswith("cc compiles")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo 'doctor.c:1:10: fatal error: Python.h: No such file' >&2; exit 1", "Python.h"),
        ("exit 3", "it ended with 3"),
        ("exit 0", "it ended with 0"),
        ('for last; do :; done; echo nonsense > "$last"', "can't be loaded"),
        ("exec /bin/sleep 60", "took more than 0.5 s"),
    ],
)
def test_a_compiler_that_does_not_work(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    if "sleep" in text:
        monkeypatch.setattr(node, "_COMPILE_SECONDS", 0.5)
    script(path / "gcc", text)
    with pytest.raises(SettingsError, match=f"C compiler: .*{why}") as refused:
        node.compiler(tmp_path, needed=True)
    assert refused.value.exit_code == 78
    found = node.compiler(tmp_path, needed=False)
    assert isinstance(found, Finding)
    assert found.result == "warning"
    assert why in found.detail


def test_a_compiler_that_is_named_and_not_there(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(path / "none"))
    with pytest.raises(SettingsError, match=r"none did not run: .*No such file"):
        node.compiler(tmp_path, needed=True)


@NEEDS_GCC
def test_a_work_volume_that_takes_no_files(path: Path, tmp_path: Path) -> None:
    real(path / "gcc")
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="Not a directory"):
        node.compiler(tmp_path / "file" / "work", needed=True)
