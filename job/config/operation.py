"""How a run behaves on its node: checkpoints, metrics, patience, what it tells whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from job import validators as values
from job.config.evaluation import EvaluationSettings
from job.config.kinds import Names, PositiveInt, Seconds


class OperationSettings(EvaluationSettings):
    """None of these changes a weight."""

    save_steps: PositiveInt = Field(50, description="checkpoint every so many steps")
    save_seconds: Seconds = Field(
        600, description="or after so many seconds, whichever comes first"
    )
    save_total_limit: PositiveInt = Field(3, description="checkpoints that stay in S3")
    grace_seconds: Seconds = Field(
        30, description="the pod's `terminationGracePeriodSeconds`; the chart passes it"
    )
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="`/metrics`, `/healthz`, `/progress`; 0: any free port"
    )
    metrics_linger_seconds: float = Field(
        20,
        ge=0,
        allow_inf_nan=False,
        description="how long the metrics stay up after the end, for a last scrape",
    )
    stall_seconds: Seconds = Field(
        900, description="without progress for so long `/healthz` turns 503"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`json` lines, or `text` with a progress bar on a terminal"
    )
    storage_patience_seconds: float = Field(
        1800,
        ge=0,
        allow_inf_nan=False,
        description="a storage outage is waited out this long while training goes on",
    )
    max_upload_failures: PositiveInt = Field(
        5, description="how often in a row a checkpoint's upload may fail for any other reason"
    )
    max_attempts_without_progress: int = Field(
        5,
        ge=0,
        description="the run ends after so many attempts in a row without progress; 0: never",
    )
    rank_join_seconds: Seconds = Field(
        900, description="with several processes: how long they wait for each other at the start"
    )
    rank_timeout_seconds: Seconds = Field(
        120, description="with several processes: one without a life sign for so long ends them all"
    )
    heartbeat_seconds: Seconds = Field(30, description="how often progress goes into `run.json`")
    allow_fingerprint_change: Names = Field(
        (), description="fields whose change on resume is accepted"
    )
    work_dir: Path | None = Field(
        None,
        description="data, caches, checkpoints on their way; a temporary folder if unset "
        "(`/scratch` in the image)",
    )
    pushgateway_url: Annotated[str | None, AfterValidator(values.http_url)] = Field(
        None, description="Pushgateway that gets a last push of the metrics"
    )
    gpu_hour_price: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="price of a GPU hour, for the report"
    )
    report_to: Annotated[Names, AfterValidator(values.trackers)] = Field(
        (), description="transformers' integrations (`tensorboard`, `wandb`, `mlflow`)"
    )
    export: Annotated[Names, AfterValidator(values.exports)] = Field(
        (), description="what is made besides the adapter: `merged_16bit`, `gguf` (docs/adapter.md)"
    )
    gguf_type: Literal["bf16", "f16", "q8_0"] = Field(
        "bf16", description="type of the weights in the GGUF file"
    )
    gguf_converter: Path | None = Field(
        None,
        description="path of llama.cpp's `convert_hf_to_gguf.py`; looked for on `PATH` if unset",
    )
    export_base_model: Annotated[str | None, AfterValidator(values.model_name)] = Field(
        None,
        description="the model with 16-bit weights to merge into, where `FORGE_MODEL` has 4 bits",
    )
    push_to_hub: Annotated[str | None, AfterValidator(values.hub_repository)] = Field(
        None, description="`owner/name` on the model hub that gets the adapter too (`HF_TOKEN`)"
    )
    hub_private: bool = Field(
        True, description="whether that repository is created as a private one"
    )
    image: str | None = Field(
        None, description="the container image, for the adapter's provenance; the chart passes it"
    )
    termination_log: Path = Field(
        Path("/dev/termination-log"),
        description="the container's `terminationMessagePath`; written only where it exists",
    )
