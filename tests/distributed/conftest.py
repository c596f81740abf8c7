"""A run of two processes on one machine, as the launcher starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environment import run_env


@pytest.fixture
def two_env(bucket: str, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    env = run_env(bucket, tiny_model, tmp_path, rows=40)
    Path(env["FORGE_TERMINATION_LOG"]).touch()
    return env | {
        "FORGE_GRADIENT_ACCUMULATION_STEPS": "2",
        "FORGE_MAX_STEPS": "80",
        "FORGE_EVAL_MAX_ROWS": "2",
        "FORGE_EVAL_STEPS": "1000",
        "FORGE_SAVE_STEPS": "5",
        "FORGE_EARLY_STOPPING_PATIENCE": "0",
        "FORGE_GRACE_SECONDS": "60",
        "PET_NPROC_PER_NODE": "2",
    }
