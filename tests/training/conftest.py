"""A tiny real model and its data, for the tests that train it."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.training import TrainingData
from tests.tiny import build_model
from tests.training.runs import made_data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return made_data(tmp_path_factory.mktemp("data"))
