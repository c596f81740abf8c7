"""The bare Unsloth script: what one would write without the job, with the same settings.

    python -m benchmarks.gpu.bare_unsloth plan.json

`plan.json` is that of `benchmarks.bare`. Unsloth is imported first, as it asks for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import unsloth  # noqa: F401  (before all that it patches)
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel

from benchmarks.bare import LINEAR_LAYERS, leave_record, sft_values, step_clock


def main(plan: dict[str, Any]) -> None:
    h = plan["hyperparameters"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=plan["model"],
        max_seq_length=h["max_seq_length"],
        dtype=None,
        load_in_4bit=True,
        use_exact_model_name=True,
        local_files_only=True,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=h["lora_r"],
        target_modules=LINEAR_LAYERS,
        lora_alpha=h["lora_alpha"],
        lora_dropout=h["lora_dropout"],
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=h["seed"],
    )
    clock = step_clock()
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**sft_values(plan), bf16=bf16, fp16=not bf16, padding_free=True),
        train_dataset=Dataset.from_list(json.loads(Path(plan["rows"]).read_text())),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    leave_record(plan, clock)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
