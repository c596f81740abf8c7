"""A run of two processes on one machine, as the launcher starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.storage import open_storage
from tests.tiny import write_rows


@pytest.fixture
def two_env(bucket: str, tiny_model: Path, tmp_path: Path) -> dict[str, str]:
    """Everything a run of two ranks needs; 40 rows wait in the bucket."""
    rows = write_rows(tmp_path / "rows.jsonl", 40)
    open_storage(bucket).upload("data/rows.jsonl", rows)
    termination_log = tmp_path / "termination-log"
    termination_log.touch()
    return {
        "FORGE_RUN_ID": "run",
        "FORGE_DATASET_URI": f"{bucket}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"{bucket}/out",
        "FORGE_PROFILE": "fast_dev",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": str(tiny_model),
        "FORGE_ENGINE": "reference",
        "FORGE_LORA_DROPOUT": "0.05",
        "FORGE_GRADIENT_ACCUMULATION_STEPS": "2",
        "FORGE_MAX_STEPS": "80",
        "FORGE_EVAL_MAX_ROWS": "2",
        "FORGE_EVAL_STEPS": "1000",
        "FORGE_SAVE_STEPS": "5",
        "FORGE_EARLY_STOPPING_PATIENCE": "0",
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_WORK_DIR": str(tmp_path / "work"),
        "FORGE_TERMINATION_LOG": str(termination_log),
        "FORGE_GRACE_SECONDS": "60",
        "FORGE_LOG_FORMAT": "json",
        "HF_HUB_OFFLINE": "1",
        "PET_NPROC_PER_NODE": "2",
    }
