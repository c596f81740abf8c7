from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from job.dataset import ChatFormat, DataFile, PreparedData, PrepareOptions
from job.dataset import prepare as prepare_in
from tests.dataset.preparing import ROWS, Prepare
from tests.dataset.standin import data_file, model_folder


@pytest.fixture(scope="session")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    """The stand-in model with the template that knows tools."""
    return ChatFormat.load(chatml_folder(tmp_path_factory))


def chatml_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("chatml"))


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Each call with a folder of its own."""
    numbers = itertools.count()

    def call(files: list[DataFile], chat: ChatFormat, options: PrepareOptions) -> PreparedData:
        return prepare_in(files, chat, options, tmp_path / f"prepared-{next(numbers)}")

    return call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


@pytest.fixture
def file(path: Path) -> DataFile:
    return data_file(path, *ROWS)
