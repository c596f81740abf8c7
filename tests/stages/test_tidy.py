"""Beside the adapter that the record names lies none that says the opposite of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.config import Settings
from job.errors import AccessDenied
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.promotion import PROMOTED_KEY
from job.stages.context import Run
from job.stages.tidy import tidy
from job.storage import Storage, open_storage
from tests.ledger.wrapped import Failing, Wrapped


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


def published(root: Storage, tmp_path: Path, key: str, storage: Storage | None = None) -> Storage:
    """By an attempt that ends now in `key`, and by one before it in both places."""
    stored = open_storage(f"{root.uri}/run")
    for name in ("adapter/README.md", "adapter/manifest.json", "candidate/manifest.json"):
        stored.write(name, b"")
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "README.md").touch()
    (folder / "manifest.json").touch()
    given = Settings(run_id="run", dataset_uri=("/d",), output_uri=root.uri)
    metrics = Metrics(BuildInfo(version="1", engine="e", profile="p", model="m"))
    nobody: Any = None
    ledger = Ledger.claim(stored, "run", version="1", conditional_writes=True)
    used = storage or stored
    run = Run(given, tmp_path, used, metrics, StopToken(), ledger, nobody, nobody)
    tidy(run, key, folder)
    return stored


def places(storage: Storage) -> set[str]:
    return {info.key.partition("/")[0] for info in storage.list()} - {"run.json"}


@pytest.mark.parametrize("key", ["adapter", "candidate"])
def test_the_one_that_the_record_names_is_left(root: Storage, tmp_path: Path, key: str) -> None:
    assert places(published(root, tmp_path, f"{key}/")) == {key}


@pytest.mark.parametrize(
    ("promoted", "left"),
    [
        ({"run_id": "run"}, {"adapter", "candidate"}),
        ({"run_id": "other", "previous": {"run_id": "run"}}, {"adapter", "candidate"}),
        ({"run_id": "other", "previous": None}, {"candidate"}),
        ({"run_id": "other"}, {"candidate"}),
    ],
)
def test_what_serving_uses_or_may_go_back_to_stays(
    root: Storage, tmp_path: Path, promoted: dict[str, Any], left: set[str]
) -> None:
    root.write(PROMOTED_KEY, json.dumps(promoted).encode())
    assert places(published(root, tmp_path, "candidate/")) == left


def test_who_may_not_ask_removes_nothing_and_ends_well(
    root: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = open_storage(f"{root.uri}/run")
    refused = Wrapped(stored, before=Failing("list", "adapter/", AccessDenied("may not")))
    assert "adapter" in places(published(root, tmp_path, "candidate/", refused))
    assert "stays in storage" in caplog.text
