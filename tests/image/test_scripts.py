"""How `make image` finds a builder, and how pip's settings get into the build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.version import __version__
from scripts import pip_settings
from tests.image.built import ROOT

BUILDER = """#!/bin/sh
[ "$1" != info ] || exit {works}
printf '%s\\n' "$(basename "$0")" "$@" > "$RECORD"
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No builder is there yet; one that is asked to build writes its arguments here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "sed", "mktemp", "rm", "git", "date", "basename", "dirname"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("RECORD", str(tmp_path / "asked"))
    for name in ("TARGET", "IMAGE", "BASE_IMAGE", "TORCH_INDEX_URL", "SOURCE", "BUILDER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "asked"


def provide(name: str, *, works: bool = True) -> None:
    program = Path(os.environ["PATH"], name)
    program.write_text(BUILDER.format(works=0 if works else 1))
    program.chmod(0o755)


def make_image() -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts" / "image.sh")
    return subprocess.run([script], capture_output=True, text=True, timeout=60, check=False)


def test_a_client_without_its_daemon_is_passed_over(asked: Path) -> None:
    provide("docker", works=False)
    provide("buildah")
    done = make_image()
    assert done.returncode == 0, done.stderr
    said = asked.read_text().splitlines()
    assert said[:2] == ["buildah", "build"]
    assert "--layers" in said
    assert said[said.index("--target") + 1] == "gpu"
    assert said[said.index("--tag") + 1] == f"forge-job:{__version__}"
    assert f"VERSION={__version__}" in said


def test_what_is_asked_for_is_built(asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide("docker")
    monkeypatch.setenv("TARGET", "cpu")
    monkeypatch.setenv("BASE_IMAGE", "registry.example/python:3.11")
    assert make_image().returncode == 0
    said = asked.read_text().splitlines()
    assert said[0] == "docker"
    assert said[said.index("--tag") + 1] == f"forge-job:{__version__}-cpu"
    assert "BASE_IMAGE=registry.example/python:3.11" in said


@pytest.mark.parametrize("name", ["TORCH_INDEX_URL", "SOURCE"])
def test_no_credentials_get_into_the_history(
    asked: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    provide("docker")
    monkeypatch.setenv(name, "https://ci:word@index.example/whl")
    done = make_image()
    assert done.returncode == 1
    assert f"{name} holds credentials" in done.stderr
    assert "word" not in done.stderr
    assert not asked.exists()


def test_without_a_builder_it_says_so(asked: Path) -> None:
    done = make_image()
    assert done.returncode == 1
    assert "install one of them" in done.stderr
    assert not asked.exists()


def test_the_setting_that_pip_itself_would_use_wins() -> None:
    listing = ":env:.timeout='9'\nglobal.timeout='5'\nglobal.find-links='\\n/a\\n/b'\nuser.x='y'\n"
    assert pip_settings.parsed(listing) == {"timeout": "9", "find-links": "\n/a\n/b"}


def test_pip_in_the_build_reaches_what_pip_reaches_here(tmp_path: Path) -> None:
    wheels, certificates, out = tmp_path / "wheels", tmp_path / "ca.pem", tmp_path / "out"
    wheels.mkdir()
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    certificates.write_text("certificates")
    options = {
        "index-url": "https://user:word@index.example/simple",
        "extra-index-url": "file:///nowhere/simple https://more.example/simple",
        "find-links": f"{wheels} https://links.example/",
        "cert": str(certificates),
        "constraint": "/nowhere/constraints.txt",
    }

    pip_settings.write(options, out)

    assert (out / "pip.conf").read_text().splitlines() == [
        "[global]",
        "index-url = https://user:word@index.example/simple",
        "extra-index-url = https://more.example/simple",
        "find-links = /run/pip/wheels https://links.example/",
        "cert = /run/secrets/ca",
    ]
    assert (out / "pip.conf").stat().st_mode & 0o777 == 0o600
    assert (out / "ca").read_text() == "certificates"
    assert (out / "wheels" / "a-1-py3-none-any.whl").read_bytes() == b"wheel"
