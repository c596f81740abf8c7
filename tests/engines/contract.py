"""Run as a program: what one engine makes of a small run, as JSON on the last line.

A process for each engine, as Unsloth wants to be imported before all that it patches.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.config import Settings
from job.engines import choose_engine, prepare_environment
from job.lifecycle import StopToken


def main(engine_name: str, model_dir: Path, folder: Path) -> dict[str, Any]:
    settings = Settings(
        run_id="contract",
        dataset_uri=("/rows.jsonl",),
        output_uri="/out",
        engine=engine_name,
        profile="fast_dev",
        max_steps=4,
        save_steps=2,
        eval_steps=2,
    )
    prepare_environment(folder)
    engine = choose_engine(engine_name)
    loaded = engine.load(model_dir, settings.hyperparameters())

    from job.training import train
    from tests.training.runs import Recorder, made_data

    stop = StopToken()
    seen = Recorder(stop)
    data = made_data(folder / "data")
    result = train(engine, loaded, data, settings, seen, stop, folder / "checkpoints")
    with engine.generating(loaded.model):
        generated = answers(loaded.model, [[5, 6, 7], [9, 10, 11]])
    adapter = folder / "adapter"
    loaded.model.save_pretrained(str(adapter), safe_serialization=True)
    config = next(iter(loaded.model.peft_config.values()))
    return {
        "steps": [asdict(step) | {"seconds": 0, "gpu_memory": {}} for step in seen.steps],
        "step": result.step,
        "losses": sorted(seen.losses),
        "evaluations": sorted(seen.eval_losses),
        "loss": seen.losses[1],
        "lora": {
            name.replace(".default", ""): list(parameter.shape)
            for name, parameter in loaded.model.named_parameters()
            if parameter.requires_grad
        },
        "dtypes": sorted({str(p.dtype) for p in loaded.model.parameters() if p.requires_grad}),
        "targets": sorted(config.target_modules),
        "checkpoint": sorted(path.name for path in seen.saves[-1].folder.iterdir()),
        "provenance": sorted(loaded.provenance),
        "generated": generated,
        "adapter": str(adapter),
    }


def answers(model: Any, prompts: list[list[int]]) -> list[int]:
    """How many tokens the engine generates for each prompt of a batch."""
    import torch

    device = next(model.parameters()).device
    ids = torch.tensor(prompts, device=device)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
        )
    return [int(row.shape[0]) - ids.shape[1] for row in out]


if __name__ == "__main__":
    name, model, into = sys.argv[1:]
    sys.stdout.write("\n" + json.dumps(main(name, Path(model), Path(into))) + "\n")
