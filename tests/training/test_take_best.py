"""The weights that a run ends with, where it stopped at its best checkpoint and not at its last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from job.checkpoint import upload_folder
from job.config import Settings
from job.engines import LoadedModel, ReferenceEngine
from job.errors import Unavailable
from job.ledger import Checkpoint, Ledger, RunRecord
from job.lifecycle import StopToken
from job.metrics import BuildInfo, Metrics
from job.stages.context import Run
from job.stages.training import take_best
from job.storage import Storage
from tests.ledger.wrapped import Failing, Wrapped
from tests.training.runs import SETTINGS

KEY = "checkpoints/00000005-001/"


def lora_weights(loaded: LoadedModel) -> list[torch.Tensor]:
    return [weights for name, weights in loaded.model.named_parameters() if "lora_" in name]


def fill(loaded: LoadedModel, value: float) -> None:
    with torch.no_grad():
        for weights in lora_weights(loaded):
            weights.fill_(value)


@pytest.fixture
def settings() -> Settings:
    return Settings(**(SETTINGS | {"early_stopping_patience": 2}))


@pytest.fixture
def loaded(model: Path, settings: Settings) -> LoadedModel:
    return ReferenceEngine().load(model, settings.hyperparameters())


def trained(storage: Storage, settings: Settings, loaded: LoadedModel, work_dir: Path) -> Run:
    """The weights are ones at step 5, the best, and twos now."""
    fill(loaded, 1)
    loaded.model.save_pretrained(str(work_dir / "best-so-far"))
    fill(loaded, 2)
    ledger = Ledger.claim(storage, "run-1", version="1", conditional_writes=True)
    stored = upload_folder(storage, KEY, work_dir / "best-so-far", 5)

    def listed(record: RunRecord) -> None:
        sha256 = stored.manifest_sha256
        record.checkpoints.append(
            Checkpoint(step=5, attempt=1, key=KEY, manifest_sha256=sha256, bytes=1, eval_loss=0.5)
        )

    ledger.update(listed)
    metrics = Metrics(BuildInfo(version="1", engine="e", profile="p", model="m"))
    nobody: Any = None  # nothing is trained any more
    return Run(settings, work_dir, storage, metrics, StopToken(), ledger, nobody, nobody)


def test_an_outage_in_between_is_waited_out(
    directory: Storage, settings: Settings, loaded: LoadedModel, tmp_path: Path
) -> None:
    wrapped = Wrapped(directory)
    run = trained(wrapped, settings, loaded, tmp_path)
    wrapped.before = Failing("download", KEY, Unavailable("away"))

    assert take_best(run, loaded, last_step=12) == 5

    assert all((weights == 1).all() for weights in lora_weights(loaded))
