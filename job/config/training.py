"""What decides the weights: data, model, hyperparameters, what is trained on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from job import validators as values
from job.choices import InvalidRows, LossOn, OverlongRows
from job.config.kinds import Names, PositiveInt


class TrainingSettings(BaseSettings):
    """The run's name, its data and model, and the hyperparameters."""

    run_id: Annotated[str, AfterValidator(values.run_id)] = Field(
        description="DNS-1123 label; names the run; the same id resumes it"
    )
    dataset_uri: Annotated[Names, AfterValidator(values.dataset_uris)] = Field(
        description="`s3://bucket/key.jsonl`, a prefix ending in `/`, or a local path; `.jsonl`, "
        "`.jsonl.gz`, `.jsonl.zst`; several separated by commas"
    )
    output_uri: Annotated[str, AfterValidator(values.output_uri)] = Field(
        description="`s3://bucket/prefix`; the run lives in `<output>/<run id>/`"
    )
    profile: Literal["fast_dev", "balanced", "max_quality"] = Field(
        "balanced", description="the table of hyperparameters a run starts from"
    )
    model_family: Literal["qwen-2.5", "deepseek-r1", "llama-3", "smollm2"] = Field(
        "qwen-2.5", description="base model, template, response markers"
    )
    model: Annotated[str | None, AfterValidator(values.model_name)] = Field(
        None, description="hub id (`@revision` pins it), absolute path, or `s3://` prefix"
    )
    trust_remote_code: Annotated[str | None, AfterValidator(values.trusted_model)] = Field(
        None,
        description="the model whose own Python code may run in the job: `FORGE_MODEL`'s value "
        "once more; no other model's code ever runs",
    )
    engine: Literal["auto", "unsloth", "reference"] = Field(
        "auto",
        description="`unsloth` (GPU), `reference` (transformers + PEFT + bitsandbytes, runs on "
        "CPU); `auto` takes unsloth where an accelerator is",
    )

    lora_r: PositiveInt | None = Field(None, description="rank of the LoRA matrices")
    lora_alpha: PositiveInt | None = Field(None, description="LoRA scale: alpha / r")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="dropout before the LoRA matrices"
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="peak learning rate"
    )
    max_steps: Annotated[int | None, AfterValidator(values.max_steps)] = Field(
        None, ge=-1, description="optimizer steps; -1 lets the epochs decide"
    )
    num_train_epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="passes over the data; set alone, it replaces the profile's `max_steps`"
    )
    per_device_train_batch_size: PositiveInt | None = Field(
        None, description="conversations per micro-batch"
    )
    gradient_accumulation_steps: PositiveInt | None = Field(
        None, description="micro-batches per optimizer step"
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="steps of linear warm-up; set alone, it replaces `warmup_ratio`"
    )
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="warm-up as a share of all steps; set alone, it replaces `warmup_steps`"
    )
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decoupled weight decay"
    )
    lr_scheduler_type: (
        Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"] | None
    ) = Field(None, description="shape of the learning rate after the warm-up")
    optim: (
        Literal[
            "adamw_8bit",
            "paged_adamw_8bit",
            "adamw_torch",
            "adamw_torch_fused",
            "paged_adamw_32bit",
        ]
        | None
    ) = Field(None, description="optimizer, by transformers' name")
    max_seq_length: Annotated[int, Field(ge=16)] | None = Field(
        None, description="most tokens a conversation may have"
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="seed of everything random")

    loss_on: LossOn = Field(
        "assistant", description="train on `assistant` turns or on `all` tokens"
    )
    invalid_rows: InvalidRows = Field(
        "fail", description="`fail`, or `skip` (quarantined and reported)"
    )
    max_invalid_fraction: float = Field(
        0.01, ge=0, le=1, description="with `skip`: more bad rows than this share fail the run"
    )
    overlong_rows: OverlongRows = Field(
        "drop",
        description="`drop`, `trim_turns` (cut at turn boundaries, never leaving a prompt without "
        "its answer), `fail`",
    )
    min_supervised_ratio: float = Field(
        0.002, ge=0, le=1, description="less than this share of trained tokens fails the run"
    )
