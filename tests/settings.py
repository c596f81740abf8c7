"""Every setting of the contract: its default, and a value for its variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from job.config import load_settings
from job.errors import SettingsError

REQUIRED: Final = {
    "FORGE_RUN_ID": "run-1",
    "FORGE_DATASET_URI": "s3://data/train.jsonl",
    "FORGE_OUTPUT_URI": "s3://runs/out",
}

DEFAULTS: Final[dict[str, Any]] = {
    "run_id": "run-1",
    "dataset_uri": ("s3://data/train.jsonl",),
    "output_uri": "s3://runs/out",
    "profile": "balanced",
    "model_family": "qwen-2.5",
    "model": None,
    "trust_remote_code": None,
    "engine": "auto",
    "lora_r": None,
    "lora_alpha": None,
    "lora_dropout": None,
    "learning_rate": None,
    "max_steps": None,
    "num_train_epochs": None,
    "per_device_train_batch_size": None,
    "gradient_accumulation_steps": None,
    "warmup_steps": None,
    "warmup_ratio": None,
    "weight_decay": None,
    "lr_scheduler_type": None,
    "optim": None,
    "max_seq_length": None,
    "seed": None,
    "loss_on": "assistant",
    "invalid_rows": "fail",
    "max_invalid_fraction": 0.01,
    "overlong_rows": "drop",
    "min_supervised_ratio": 0.002,
    "eval_fraction": 0.2,
    "eval_max_rows": 512,
    "eval_max_seconds": 0.0,
    "eval_text_match": "off",
    "eval_steps": 50,
    "eval_generate_every": 0,
    "eval_generate_rows": 64,
    "early_stopping_patience": 3,
    "gate_min_exact": None,
    "gate_min_gain": None,
    "gate_on": "rate",
    "promote": "newest",
    "save_steps": 50,
    "save_seconds": 600.0,
    "save_total_limit": 3,
    "grace_seconds": 30.0,
    "metrics_port": 9464,
    "metrics_linger_seconds": 20.0,
    "stall_seconds": 900.0,
    "log_format": "auto",
    "storage_patience_seconds": 1800.0,
    "max_upload_failures": 5,
    "max_attempts_without_progress": 5,
    "rank_join_seconds": 900.0,
    "rank_timeout_seconds": 120.0,
    "heartbeat_seconds": 30.0,
    "allow_fingerprint_change": (),
    "work_dir": None,
    "pushgateway_url": None,
    "gpu_hour_price": None,
    "report_to": (),
    "export": (),
    "export_base_model": None,
    "gguf_type": "bf16",
    "gguf_converter": None,
    "push_to_hub": None,
    "hub_private": True,
    "image": None,
    "termination_log": Path("/dev/termination-log"),
}
"""The contract's, section 2."""

GIVEN: Final[dict[str, tuple[str, Any]]] = {
    "run_id": ("r-2", "r-2"),
    "dataset_uri": (
        "s3://b/a.jsonl.gz, s3://b/c/ ,/data",
        ("s3://b/a.jsonl.gz", "s3://b/c/", "/data"),
    ),
    "output_uri": ("s3://b/p/q/", "s3://b/p/q"),
    "profile": ("max_quality", "max_quality"),
    "model_family": ("deepseek-r1", "deepseek-r1"),
    "model": ("owner/name@abc", "owner/name@abc"),
    "trust_remote_code": (
        "unsloth/Qwen2.5-14B-Instruct-bnb-4bit",  # the default model
        "unsloth/Qwen2.5-14B-Instruct-bnb-4bit",
    ),
    "engine": ("reference", "reference"),
    "lora_r": ("64", 64),
    "lora_alpha": ("128", 128),
    "lora_dropout": ("0.1", 0.1),
    "learning_rate": ("3e-5", 3e-5),
    "max_steps": ("7", 7),
    "num_train_epochs": ("0.5", 0.5),
    "per_device_train_batch_size": ("4", 4),
    "gradient_accumulation_steps": ("2", 2),
    "warmup_steps": ("3", 3),
    "warmup_ratio": ("0.1", 0.1),
    "weight_decay": ("0", 0.0),
    "lr_scheduler_type": ("cosine", "cosine"),
    "optim": ("adamw_torch", "adamw_torch"),
    "max_seq_length": ("4096", 4096),
    "seed": ("0", 0),
    "loss_on": ("all", "all"),
    "invalid_rows": ("skip", "skip"),
    "max_invalid_fraction": ("0.5", 0.5),
    "overlong_rows": ("trim_turns", "trim_turns"),
    "min_supervised_ratio": ("0", 0.0),
    "eval_fraction": ("0", 0.0),
    "eval_max_rows": ("10", 10),
    "eval_max_seconds": ("60", 60.0),
    "eval_text_match": ("normalized", "normalized"),
    "eval_steps": ("5", 5),
    "eval_generate_every": ("2", 2),
    "eval_generate_rows": ("8", 8),
    "early_stopping_patience": ("0", 0),
    "gate_min_exact": ("0.8", 0.8),
    "gate_min_gain": ("-0.1", -0.1),
    "gate_on": ("lower_bound", "lower_bound"),
    "promote": ("best", "best"),
    "save_steps": ("1", 1),
    "save_seconds": ("0.5", 0.5),
    "save_total_limit": ("1", 1),
    "grace_seconds": ("120", 120.0),
    "metrics_port": ("0", 0),
    "metrics_linger_seconds": ("0", 0.0),
    "stall_seconds": ("60", 60.0),
    "log_format": ("json", "json"),
    "storage_patience_seconds": ("0", 0.0),
    "max_upload_failures": ("1", 1),
    "max_attempts_without_progress": ("0", 0),
    "rank_join_seconds": ("60", 60.0),
    "rank_timeout_seconds": ("15", 15.0),
    "heartbeat_seconds": ("5", 5.0),
    "allow_fingerprint_change": ("lora, seed,", ("lora", "seed")),
    "work_dir": ("/scratch", Path("/scratch")),
    "pushgateway_url": ("https://u:p@gw:9091/x", "https://u:p@gw:9091/x"),
    "gpu_hour_price": ("2.5", 2.5),
    "report_to": ("wandb,mlflow", ("wandb", "mlflow")),
    "export": ("merged_16bit,gguf", ("merged_16bit", "gguf")),
    "gguf_type": ("q8_0", "q8_0"),
    "gguf_converter": ("/opt/llama.cpp/convert.py", Path("/opt/llama.cpp/convert.py")),
    "export_base_model": ("owner/name", "owner/name"),
    "push_to_hub": ("owner/name", "owner/name"),
    "hub_private": ("false", False),
    "image": ("r.example/forge-job:1", "r.example/forge-job:1"),
    "termination_log": ("/tmp/t", Path("/tmp/t")),  # noqa: S108
}
"""Field → what stands in the variable, and what it means."""


def problems() -> dict[str, str]:
    """What `load_settings` finds wrong, by variable."""
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.exit_code == 78
    return {problem.where: str(problem) for problem in caught.value.problems}
