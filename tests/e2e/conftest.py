"""A tiny real model, its data, and the environment of a run against the real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environment import run_env


@pytest.fixture
def job_env(bucket: str, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    return run_env(bucket, tiny_model, tmp_path, rows=70) | {
        "FORGE_LEARNING_RATE": "0.01",
        "FORGE_MAX_STEPS": "24",
        "FORGE_EVAL_MAX_ROWS": "4",
        "FORGE_EVAL_STEPS": "10",
        "FORGE_SAVE_STEPS": "8",
    }
