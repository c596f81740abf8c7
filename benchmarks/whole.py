"""The whole job on the same model and rows, with a stopwatch around its own code.

    python -m benchmarks.whole plan.json

Runs `job.run_job` as it is, with all that it does beside training. `plan.json` holds the settings
and where to write the record (see `benchmarks.overhead`).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

import job.training.trainer
from benchmarks.stopwatch import Stopwatch
from job import Progress, load_settings, run_job
from job.checkpoint import CheckpointUploader
from job.ledger import Ledger
from job.logs import configure
from job.metrics import MetricsServer
from job.stages.monitor import Monitor
from job.training.callbacks import JobCallback

ON_THE_TRAINING_THREAD = ("began", "alive", "stepped", "logged", "saved")


def main(plan: dict[str, Any]) -> None:
    stopwatch = Stopwatch()
    watch_own_code(stopwatch)
    steps: list[tuple[int, float, float | None]] = []

    def leave() -> None:
        record = {
            "steps": steps,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "peak_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0,
            "spans": [asdict(span) for span in stopwatch.spans],
        }
        Path(plan["record"]).write_text(json.dumps(record))

    def note(progress: Progress) -> None:
        steps.append((progress.step, time.perf_counter(), progress.loss))
        if progress.step == progress.total_steps:
            leave()  # also where publishing a large adapter takes too long

    settings = load_settings(**plan["settings"])
    run_job(settings, on_progress=note, context=configure("json", settings.run_id))
    leave()


def watch_own_code(stopwatch: Stopwatch) -> None:
    """Time all that the job adds to the Trainer's loop, and its work in the background."""
    for event in (name for name in vars(JobCallback) if hasattr(TrainerCallback, name)):
        if event.startswith("on_"):
            stopwatch.time(JobCallback, event)
    for event in ON_THE_TRAINING_THREAD:
        stopwatch.time(Monitor, event)
    stopwatch.time(job.training.trainer, "count")
    stopwatch.time(CheckpointUploader, "_commit")
    stopwatch.time(Ledger, "heartbeat")
    stopwatch.time(MetricsServer, "_answer")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
