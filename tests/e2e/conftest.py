"""A tiny real model, its data, and the environment of a run against the real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.storage import open_storage
from tests.tiny import write_rows


@pytest.fixture
def job_env(bucket: str, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """Everything a run needs; 70 rows wait in the bucket."""
    rows = write_rows(tmp_path / "rows.jsonl", 70)
    open_storage(bucket).upload("data/rows.jsonl", rows)
    return {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"{bucket}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"{bucket}/out",
        "FORGE_PROFILE": "fast_dev",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": str(tiny_model),
        "FORGE_ENGINE": "reference",
        "FORGE_LORA_DROPOUT": "0.05",
        "FORGE_LEARNING_RATE": "0.01",
        "FORGE_MAX_STEPS": "24",
        "FORGE_EVAL_MAX_ROWS": "4",
        "FORGE_EVAL_STEPS": "10",
        "FORGE_SAVE_STEPS": "8",
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_WORK_DIR": str(tmp_path / "work"),
        "FORGE_TERMINATION_LOG": str(tmp_path / "termination-log"),
        "FORGE_LOG_FORMAT": "json",
        "HF_HUB_OFFLINE": "1",
    }
