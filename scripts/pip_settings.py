"""Writes how pip is set up on this machine into a folder, for an image build (scripts/image.sh).

    pip.conf   index, proxy and the like; the build gets it as a secret: indexes carry passwords
    ca         the certificates that pip trusts here, where it was told any
    wheels/    the wheels of local find-links folders

What can't leave this machine is left out: indexes that are folders, and constraints.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

CA_IN_BUILD: Final = "/run/secrets/ca"
WHEELS_IN_BUILD: Final = "/run/pip/wheels"

_TAKEN_OVER: Final = (
    "index-url",
    "proxy",
    "trusted-host",
    "timeout",
    "default-timeout",
    "retries",
)
_SCOPES: Final = ("global", "install", ":env:")
"""The later ones win, as in pip."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    write(settings(), parser.parse_args(argv).folder)
    return 0


def settings() -> dict[str, str]:
    """What `pip config list` says; nothing where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return parsed(said)


def parsed(listing: str) -> dict[str, str]:
    """`global.cert='/x'` and so on, as option → value; scopes that win come last."""
    found: dict[str, dict[str, str]] = {scope: {} for scope in _SCOPES}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        scope, _, option = key.rpartition(".")
        if scope in found:
            found[scope][option] = str(ast.literal_eval(value))
    return {option: value for scope in _SCOPES for option, value in found[scope].items()}


def write(options: Mapping[str, str], folder: Path) -> None:
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    lines = [f"{option} = {options[option]}" for option in _TAKEN_OVER if option in options]
    if extra := [url for url in options.get("extra-index-url", "").split() if not _is_local(url)]:
        lines.append("extra-index-url = " + " ".join(extra))
    links = [link for link in options.get("find-links", "").split() if not _is_local(link)]
    lines.append("find-links = " + " ".join([WHEELS_IN_BUILD, *links]))
    _bring_wheels(filter(_is_local, options.get("find-links", "").split()), wheels)
    if "cert" in options:
        shutil.copyfile(options["cert"], folder / "ca")
        lines.append(f"cert = {CA_IN_BUILD}")
    _write_private(folder / "pip.conf", "\n".join(["[global]", *lines]) + "\n")


def _is_local(link: str) -> bool:
    return urlsplit(link).scheme in ("", "file")


def _bring_wheels(links: Iterable[str], target: Path) -> None:
    for link in links:
        for wheel in sorted(Path(unquote(urlsplit(link).path)).glob("*.whl")):
            try:
                os.link(wheel, target / wheel.name)
            except OSError:  # another file system
                shutil.copyfile(wheel, target / wheel.name)


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
