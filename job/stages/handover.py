"""What rank 0 tells the others: what to fetch and prepare, and from where to start."""

from __future__ import annotations

from dataclasses import asdict

from job.checkpoint import Restored
from job.dataset import DataFile
from job.model import BaseModel
from job.stages.context import Run
from job.stages.training import recorded_fit

SOURCES, START = "sources", "start"


def node_topic(node: int) -> str:
    """Under which the first rank of a node says that everything lies ready on it."""
    return f"node-{node}"


def tell_sources(run: Run, files: list[DataFile], model: BaseModel) -> None:
    """The other nodes fetch and prepare the very same, while this one prepares its own."""
    if run.ranks is None:
        return
    accumulation = run.settings.hyperparameters().gradient_accumulation_steps
    message = {
        "attempt": run.own_dir.name,
        "pins": [asdict(file.source) for file in files],
        "revision": model.revision,
        "gradient_accumulation_steps": accumulation,
        "had_card": run.ledger.record.had_card,
    }
    run.ranks.tell(SOURCES, message)


def tell_start(
    run: Run, restored: Restored | None, model: BaseModel, validation_changed: bool = False
) -> None:
    """Nothing was refused: all ranks load the model and train from this checkpoint."""
    if run.ranks is None:
        return
    checkpoint = restored.checkpoint if restored else None
    fit = recorded_fit(run.ledger.record)
    fields = {"key", "manifest_sha256", "step"}
    run.ranks.tell(
        START,
        {
            "checkpoint": checkpoint.model_dump(include=fields) if checkpoint else None,
            "fit": asdict(fit) if fit else None,
            "validation_changed": validation_changed,
        },
    )
    model.source.model_dir()
    run.ranks.tell(node_topic(run.ranks.place.node), {"work_dir": str(run.work_dir)})
