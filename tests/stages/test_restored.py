"""Where a run goes on, and what that costs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job.checkpoint import upload_folder
from job.config import Settings
from job.ledger import Checkpoint, Ledger, Progress, RunRecord
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.stages.context import Run
from job.stages.training import restore
from job.storage import Storage


def claim(storage: Storage) -> Ledger:
    return Ledger.claim(storage, "run-1", version="1", conditional_writes=True)


def preempted(storage: Storage, folder: Path, *steps: int, reached: int) -> None:
    """A run whose checkpoints are whole as they lie there, and of no use."""
    (folder / "state").parent.mkdir()
    (folder / "state").write_text("no checkpoint of the Trainer's")
    ledger = claim(storage)
    for step in steps:
        stored = upload_folder(storage, f"checkpoints/{step:08d}-001/", folder, step)
        found = Checkpoint(
            step=step,
            attempt=1,
            key=stored.key,
            manifest_sha256=stored.manifest_sha256,
            bytes=stored.bytes,
        )

        def listed(record: RunRecord, found: Checkpoint = found) -> None:
            record.checkpoints.append(found)

        ledger.update(listed)
    ledger.close("preempted", 75, "SIGTERM", Progress(step=reached))


def test_steps_behind_a_rejected_checkpoint_are_trained_again_and_counted(
    directory: Storage, tmp_path: Path
) -> None:
    preempted(directory, tmp_path / "made", 8, 16, reached=17)
    ledger = claim(directory)
    assert ledger.record.current.lost_steps == 1
    settings = Settings(run_id="run-1", dataset_uri=("/rows.jsonl",), output_uri="/o")
    metrics = Metrics(BuildInfo(version="1", engine="e", profile="p", model="m"))
    nobody: Any = None  # nothing is trained yet
    run = Run(settings, tmp_path, directory, metrics, StopToken(), ledger, nobody, nobody)

    assert restore(run) is None

    attempt = ledger.record.current
    assert [rejection.step for rejection in attempt.rejected] == [16, 8]
    assert (attempt.from_step, attempt.lost_steps) == (0, 17)
