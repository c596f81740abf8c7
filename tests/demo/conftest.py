"""The real wheels, downloaded as the demo does and kept in the demo's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.demo.assets import DEFAULT_CACHE, fetch_leaderboard

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache() -> Path:
    return REPOSITORY / DEFAULT_CACHE


@pytest.fixture(scope="session")
def leaderboard(cache: Path) -> Path:
    return fetch_leaderboard(cache)
