"""What benchmarks of the whole job train on: the demo's model and rows, or tiny ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from job.config import PREFIX
from job.demo.assets import DEFAULT_CACHE, fetch_leaderboard, fetch_model
from job.demo.bfcl import DEMO, convert, write
from job.demo.model import prepare_model

MODELS: Final = ("smollm2", "tiny")


def model_and_rows(name: str, folder: Path, rows: Path, shortest: int | None = None) -> Path:
    """Writes `rows`, only so many of the shortest where that is given; returns the model's folder.

    `tiny` is the tests' two-layer model, for trying a benchmark out.
    """
    if name == "tiny":
        from tests.tiny import build_model, write_rows

        write_rows(rows, shortest or 40)
        return build_model(folder / "tiny")
    found = convert(fetch_leaderboard(DEFAULT_CACHE), DEMO.categories, max_chars=DEMO.max_chars)
    by_length = sorted(found.rows, key=lambda row: len(json.dumps(row)))
    write(by_length[:shortest] if shortest else found.rows, rows)
    return demo_model()


def demo_model() -> Path:
    """SmolLM2-135M-Instruct."""
    return prepare_model(
        fetch_model(DEFAULT_CACHE), (DEFAULT_CACHE / "smollm2-135m-instruct").resolve()
    )


def job_env(bucket: str, run_id: str, model: Path, folder: Path, **more: str) -> dict[str, str]:
    """This process's environment with the settings of a run that trains on rows in `bucket`."""
    settings = {
        "RUN_ID": run_id,
        "DATASET_URI": f"s3://{bucket}/data/rows.jsonl",
        "OUTPUT_URI": f"s3://{bucket}/runs",
        "PROFILE": "fast_dev",
        "MODEL_FAMILY": "smollm2",
        "MODEL": str(model),
        "ENGINE": "reference",
        "WORK_DIR": str(folder / "work"),
        **more,
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return clean | {PREFIX + name: value for name, value in settings.items()}
