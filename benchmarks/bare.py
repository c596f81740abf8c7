"""The bare script: QLoRA with transformers, PEFT, bitsandbytes and TRL, and nothing of the job.

    python -m benchmarks.bare plan.json

What one would write without the job, down to its local checkpoints. `plan.json` names the model
folder, the tokenized rows, the hyperparameters, the precision (device, bf16, gradient
checkpointing), and where to write the checkpoints and the record: see `benchmarks.overhead`.

Only these are not a plain script's: the callback that notes when each step ended, and, to have
the mathematics that the job has, the seed before the LoRA matrices, their cast to fp32 and, on a
CPU and unless the plan's `dense` is false, the 4-bit weights de-quantized once.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def step_clock() -> Any:
    """Notes step, time and loss when the Trainer logs a step, as the job's `on_progress` does."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.steps: list[tuple[int, float, float]] = []

        def on_train_begin(self, *args: Any, **_: Any) -> None:
            import torch

            if torch.cuda.is_available():  # the peak of training, as the job's is
                torch.cuda.reset_peak_memory_stats()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                self.steps.append((state.global_step, time.perf_counter(), logs["loss"]))

    return StepClock()


def sft_values(plan: dict[str, Any]) -> dict[str, Any]:
    """What both bare scripts give to `SFTConfig`."""
    h = plan["hyperparameters"]
    return {
        "output_dir": plan["output"],
        "max_length": None,
        "per_device_train_batch_size": h["per_device_train_batch_size"],
        "gradient_accumulation_steps": h["gradient_accumulation_steps"],
        "max_steps": h["max_steps"],
        "learning_rate": h["learning_rate"],
        "warmup_steps": h["warmup_steps"],
        "weight_decay": h["weight_decay"],
        "lr_scheduler_type": h["lr_scheduler_type"],
        "optim": h["optim"],
        "seed": h["seed"],
        "data_seed": h["seed"],
        "logging_steps": 1,
        "save_steps": plan["save_steps"],
        "report_to": "none",
        "disable_tqdm": True,
    }


def leave_record(plan: dict[str, Any], clock: Any) -> None:
    import torch

    gpu = torch.cuda.is_available()
    record = {
        "steps": clock.steps,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "peak_bytes": torch.cuda.max_memory_reserved() if gpu else 0,
    }
    Path(plan["record"]).write_text(json.dumps(record))


def main(plan: dict[str, Any]) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, set_seed
    from trl import SFTConfig, SFTTrainer

    h = plan["hyperparameters"]
    gpu = torch.cuda.is_available()
    half = torch.bfloat16 if plan["precision"]["bf16"] else torch.float16
    dtype = half if gpu else torch.float32

    tokenizer = AutoTokenizer.from_pretrained(plan["model"])
    model = AutoModelForCausalLM.from_pretrained(
        plan["model"],
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        dtype=dtype,
        device_map={"": "cuda:0" if gpu else "cpu"},
        attn_implementation="sdpa",
    )
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=h["lora_r"],
        lora_alpha=h["lora_alpha"],
        lora_dropout=h["lora_dropout"],
        target_modules=LINEAR_LAYERS,
        bias="none",
        task_type="CAUSAL_LM",
    )
    set_seed(h["seed"])
    model = get_peft_model(model, lora)

    clock = step_clock()
    set_seed(h["seed"])
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **sft_values(plan),
            **plan["precision"],
        ),
        train_dataset=Dataset.from_list(json.loads(Path(plan["rows"]).read_text())),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    # TRL has just cast the adapter to bf16; the job trains it in fp32.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    if plan.get("dense", True) and not gpu:
        from job.engines.dense import make_dense

        make_dense(trainer.model)
    trainer.train()
    leave_record(plan, clock)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
