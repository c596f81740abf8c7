"""Run as a program on a GPU: Unsloth's loss over a padding-free row is that of its conversations.

Compared through the trainer that the job builds, which is where the metadata are added.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from job.config import Settings
from job.engines import choose_engine, prepare_environment

RELATIVE = 0.02
"""bf16: a conversation that saw another would differ by far more."""


def main(model_dir: Path) -> None:
    settings = Settings(
        run_id="crossing",
        dataset_uri=("/rows.jsonl",),
        output_uri="/out",
        engine="unsloth",
        profile="fast_dev",
        max_steps=1,
        learning_rate=1e-9,
    )
    prepare_environment(Path(tempfile.mkdtemp()))
    engine = choose_engine("unsloth")
    loaded = engine.load(model_dir, settings.hyperparameters())

    from job.training.build import build_trainer, to_dataset, training_arguments
    from job.training.fitting import TryOut
    from tests.training.runs import made_data

    with tempfile.TemporaryDirectory() as name:
        data = made_data(Path(name))
        hyperparameters = settings.hyperparameters()
        own = TryOut(data.train, hyperparameters.optim, lambda _fit: None)
        arguments = training_arguments(hyperparameters, settings, Path(name), evaluates=True)
        arguments |= engine.training_arguments()
        trainer = build_trainer(engine, loaded, data, settings, arguments, [own])
        rows = [to_dataset(data.train)[i] for i in range(4)]
        together = loss(trainer, rows)
        alone = [loss(trainer, [row]) for row in rows]
    trained = [sum(label != -100 for label in row["labels"][1:]) for row in rows]
    mean = sum(a * n for a, n in zip(alone, trained, strict=True)) / sum(trained)
    if abs(together - mean) > RELATIVE * mean:
        sys.exit(f"together {together}, one by one {mean}: {alone}")


def loss(trainer: object, rows: list[dict[str, list[int]]]) -> float:
    import torch

    batch = trainer._prepare_inputs(trainer.data_collator(rows))  # type: ignore[attr-defined]
    trainer.model.eval()  # type: ignore[attr-defined]
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        return float(trainer.compute_loss(trainer.model, batch))  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
