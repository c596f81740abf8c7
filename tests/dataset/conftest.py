from __future__ import annotations

from pathlib import Path

import pytest

from job.dataset import ChatFormat
from tests.dataset.standin import model_folder


@pytest.fixture(scope="session")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    """The stand-in model with the template that knows tools."""
    return ChatFormat.load(chatml_folder(tmp_path_factory))


def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("chatml"))
