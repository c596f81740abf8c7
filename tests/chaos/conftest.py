"""One ground for all of the suite, and a reference run for each variant that is asked for."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

import pytest

from tests.chaos.proxy import nothing
from tests.chaos.runs import Ground, Reference, ground, reference


@pytest.fixture(scope="session")
def _ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    before = dict(os.environ)
    with ground(tmp_path_factory.mktemp("chaos")) as place:
        os.environ.clear()
        os.environ.update(before)  # of each test that asks, `place` sets it anew
        yield place


@pytest.fixture
def place(_ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    for name, value in _ground.direct.items():
        monkeypatch.setenv(name, value)  # other tests of this process have stores of their own
    _ground.proxy.rule = nothing
    yield _ground
    _ground.proxy.rule = nothing


@pytest.fixture(scope="session")
def references(_ground: Ground) -> Callable[[str], Reference]:
    """Made once for each variant."""
    return functools.cache(functools.partial(reference, _ground))
