"""The bare side: a plain TRL script, from its process's start to its first training step.

    python -m benchmarks.startup.bare plan.json

What one would write without the job: rows as JSONL from the local disk, tokenized by TRL itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.bare import LINEAR_LAYERS


def main(plan: dict[str, Any]) -> None:
    marks = {"began": time.time()}
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    marks["imported"] = time.time()

    class FirstStep(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks["first step"] = time.time()
            Path(plan["record"]).write_text(json.dumps(marks))
            sys.exit(0)

    lines = Path(plan["rows"]).read_text().splitlines()
    rows = [{"messages": json.loads(line)["messages"]} for line in lines]
    model = AutoModelForCausalLM.from_pretrained(
        plan["model"],
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        ),
        dtype=torch.float32,
        device_map={"": "cpu"},
    )
    marks["model"] = time.time()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=plan["output"],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=2048,
            max_steps=2,
            per_device_train_batch_size=2,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            r=8, lora_alpha=16, target_modules=LINEAR_LAYERS, task_type="CAUSAL_LM"
        ),
        callbacks=[FirstStep()],
    )
    marks["data"] = time.time()
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
