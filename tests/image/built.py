"""The CPU image, built for real with buildah on a base of Debian's packages, and looked into."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]

_PROGRAMS: Final = ("buildah", "debootstrap", "unshare", "mount")
_BASE: Final = "forge-job-base:bookworm"
_TIMEOUT: Final = 1500  # seconds; far above what anything here takes


@dataclass(frozen=True)
class Layer:
    digest: str
    size: int
    """Bytes, uncompressed."""


@dataclass(frozen=True)
class Image:
    name: str
    built_in: float
    """Seconds."""
    description: dict[str, Any]
    """All that an image says of itself: configuration, history."""
    layers: tuple[Layer, ...]

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.description["config"]
        return found

    @property
    def env(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)


def required() -> None:
    """Skip where no image can be built; in CI, where it has to be, fail."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if not missing:
        return
    reason = f"no image is built without {', '.join(missing)}: see scripts/system_packages.sh"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def base() -> str:
    """The base image's name; made once, and kept."""
    _run(str(ROOT / "scripts" / "base_image.sh"), _BASE)
    return f"localhost/{_BASE}"


def build(name: str, base_image: str, context: Path = ROOT) -> Image:
    """What `make image TARGET=cpu` does, with buildah."""
    settings = {
        "TARGET": "cpu",
        "IMAGE": name,
        "BASE_IMAGE": base_image,
        "BUILDER": "buildah",
        "CONTEXT": str(context),
        "PYTHON": sys.executable,
    }
    begun = time.monotonic()
    _run(str(ROOT / "scripts" / "image.sh"), env=settings)
    took = time.monotonic() - begun
    description = json.loads(_run("buildah", "inspect", "--type", "image", name))["OCIv1"]
    return Image(name, took, description, _layers(description["rootfs"]["diff_ids"]))


def remove(name: str) -> None:
    _run("buildah", "rmi", "--force", name)


@contextmanager
def unpacked(image: Image) -> Iterator[Path]:
    """Its root folder."""
    container = _run("buildah", "from", "--pull-never", image.name).strip()
    try:
        yield Path(_run("buildah", "mount", container).strip())
    finally:
        _run("buildah", "rm", container)


def _layers(digests: list[str]) -> tuple[Layer, ...]:
    """With the sizes that buildah's store has on record."""
    store = json.loads(_run("buildah", "info"))["store"]
    records = Path(store["GraphRoot"], f"{store['GraphDriverName']}-layers", "layers.json")
    sizes = {x.get("diff-digest"): x.get("diff-size", 0) for x in json.loads(records.read_text())}
    return tuple(Layer(digest, sizes[digest]) for digest in digests)


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
