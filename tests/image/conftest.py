"""One image for all tests of it. The first build takes minutes; later ones find its layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import built
from tests.image.built import Image
from tests.image.container import Pod
from tests.tiny import build_model

_NAME = "forge-job-test:cpu"


@pytest.fixture(scope="session")
def base_image() -> str:
    built.required()
    return built.base()


@pytest.fixture(scope="session")
def image(base_image: str) -> Image:
    return built.build(_NAME, base_image)


@pytest.fixture(scope="session")
def image_root(image: Image) -> Iterator[Path]:
    """The image's file system."""
    with built.unpacked(image) as root:
        yield root


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that any user can read."""
    folder = build_model(tmp_path_factory.mktemp("model"))
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return folder


@pytest.fixture
def pod(image: Image, image_root: Path, model: Path, tmp_path: Path) -> Pod:
    termination_log = tmp_path / "termination-log"
    termination_log.touch()
    termination_log.chmod(0o666)
    return Pod(image, image_root, termination_log, model)
