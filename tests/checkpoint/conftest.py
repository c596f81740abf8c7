"""Checkpoints live on both backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.storage import Storage, open_storage


@pytest.fixture(params=["s3", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "s3":
        return open_storage(request.getfixturevalue("bucket") + "/out/run-1")
    return open_storage(str(tmp_path / "out" / "run-1"))


@pytest.fixture
def directory(tmp_path: Path) -> Storage:
    """Where the backend makes no difference."""
    return open_storage(str(tmp_path / "out" / "run-1"))
