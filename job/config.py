"""The settings of a run: read once from `FORGE_*`, checked at once, frozen, free of torch.

`load_settings` reports every problem in one error: values that don't parse, values out of range,
names that are missing, and names that don't exist, each with the nearest one that does.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from job import values
from job.errors import Problem, SettingsError
from job.families import FAMILIES, ModelFamily
from job.profiles import PROFILES, Hyperparameters
from job.redact import redact

PREFIX: Final = "FORGE_"

_SERVICE_LINK: Final = re.compile(
    r"(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)$"
)
"""Variables that Kubernetes adds for a Service called `forge-…` (enableServiceLinks)."""
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")
"""The value of one more such variable, `FORGE_…_PORT`: told from a misspelled setting by it."""


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.split_names)]
PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting of the job. The variable is the field's name in capitals after `FORGE_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

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
    trust_remote_code: str | None = Field(
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
        None, description="passes over the data; set alone, it lifts the profile's `max_steps`"
    )
    per_device_train_batch_size: PositiveInt | None = Field(
        None, description="conversations a micro-batch"
    )
    gradient_accumulation_steps: PositiveInt | None = Field(
        None, description="micro-batches an optimizer step"
    )
    warmup_steps: int | None = Field(
        None, ge=0, description="steps of linear warm-up; set alone, it lifts `warmup_ratio`"
    )
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="warm-up as a share of all steps; set alone, it lifts `warmup_steps`"
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
        None, description="tokens a conversation may have"
    )
    seed: int | None = Field(None, ge=0, lt=2**32, description="of everything random")

    loss_on: Literal["assistant", "all"] = Field(
        "assistant", description="train on `assistant` turns or on `all` tokens"
    )
    invalid_rows: Literal["fail", "skip"] = Field(
        "fail", description="`fail`, or `skip` (quarantined and reported)"
    )
    max_invalid_fraction: float = Field(
        0.01, ge=0, le=1, description="with `skip`: more bad rows than this share fail the run"
    )
    overlong_rows: Literal["drop", "trim_turns", "fail"] = Field(
        "drop",
        description="`drop`, `trim_turns` (cut at turn boundaries, never leaving a prompt without "
        "its answer), `fail`",
    )
    min_supervised_ratio: float = Field(
        0.002, ge=0, le=1, description="less than this share of trained tokens fails the run"
    )
    eval_fraction: float = Field(
        0.2, ge=0, lt=1, description="share of rows held out, stable under re-ordering and growth"
    )
    eval_max_rows: PositiveInt = Field(512, description="held-out rows evaluated at most")
    eval_steps: PositiveInt = Field(50, description="steps between validation losses")
    early_stopping_patience: int = Field(
        3, ge=0, description="evaluations without a better validation loss before it ends; 0: never"
    )
    gate_min_exact: float | None = Field(
        None, ge=0, le=1, description="promotion gate: least share of exactly right held-out calls"
    )
    gate_min_gain: float | None = Field(
        None, ge=-1, le=1, description="promotion gate: least gain of that share over the base"
    )
    save_steps: PositiveInt = Field(50, description="checkpoint every so many steps")
    save_seconds: Seconds = Field(600, description="or after so many seconds, whichever is first")
    save_total_limit: PositiveInt = Field(3, description="checkpoints that stay in S3")
    grace_seconds: Seconds = Field(
        30, description="the pod's `terminationGracePeriodSeconds`; the chart passes it"
    )
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="`/metrics`, `/healthz`, `/progress`; 0: any free port"
    )
    metrics_linger_seconds: float = Field(
        20, ge=0, description="stays up after the end for a last scrape"
    )
    stall_seconds: Seconds = Field(
        900, description="without progress for so long `/healthz` turns 503"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`json` lines, or `text` with a progress bar on a terminal"
    )
    storage_patience_seconds: float = Field(
        1800, ge=0, description="a storage outage is waited out this long while training goes on"
    )
    max_upload_failures: PositiveInt = Field(
        5, description="a checkpoint's upload may fail so often in a row for another reason"
    )
    max_attempts_without_progress: int = Field(
        5,
        ge=0,
        description="so many attempts in a row that end where they began end the run; 0: never",
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
        None, description="a last push of the metrics"
    )
    gpu_hour_price: float | None = Field(
        None, ge=0, description="price of a GPU hour, for the report"
    )
    report_to: Annotated[Names, AfterValidator(values.trackers)] = Field(
        (), description="transformers' integrations (`tensorboard`, `wandb`, `mlflow`)"
    )
    termination_log: Path = Field(
        Path("/dev/termination-log"),
        description="the container's `terminationMessagePath`; written only where it exists",
    )

    @property
    def family(self) -> ModelFamily:
        return FAMILIES[self.model_family]

    @property
    def base_model(self) -> str:
        """What `FORGE_MODEL` or else the family names."""
        return self.model or self.family.base_model

    @property
    def trusts_model(self) -> bool:
        """Whether the model's own code may run."""
        return self.trust_remote_code == self.base_model

    @property
    def run_uri(self) -> str:
        return f"{self.output_uri}/{self.run_id}"

    def public(self) -> dict[str, Any]:
        """The settings as data, without what may hold credentials."""
        return self.model_dump(mode="json", exclude={"pushgateway_url"})

    def hyperparameters(self) -> Hyperparameters:
        """The profile with the overrides on top.

        Epochs or a warm-up ratio given alone replace the profile's step counts: they would
        otherwise be silently outranked by them.
        """
        profile = dict(vars(PROFILES[self.profile]))
        given = {k: v for k in profile if (v := getattr(self, k)) is not None}
        if "num_train_epochs" in given:
            given.setdefault("max_steps", -1)
        if "warmup_ratio" in given:
            given.setdefault("warmup_steps", 0)
        elif "warmup_steps" in given:
            given["warmup_ratio"] = 0.0  # else no steps would mean the profile's ratio
        return Hyperparameters(**(profile | given))


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with `overrides` (by field name) on top.

    Raises `SettingsError` with every problem that there is.
    """
    problems = list(_unknown_names(os.environ))
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        problems += [_as_problem(dict(details)) for details in error.errors()]
        raise SettingsError(problems) from None
    if settings.trust_remote_code is not None and not settings.trusts_model:
        found = f"names {settings.trust_remote_code}, the model is {settings.base_model}"
        problems.append(
            Problem("FORGE_TRUST_REMOTE_CODE", found, "name the very model, or nothing")
        )
    if problems:
        raise SettingsError(problems)
    return settings


def _unknown_names(environ: Mapping[str, str]) -> Iterator[Problem]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _is_service_link(name, environ[name]):
            continue
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {nearest[0]}?" if nearest else "see the settings table in README.md"
        yield Problem(name, "is not a setting", hint)


def _is_service_link(name: str, value: str) -> bool:
    if name.endswith("_PORT") and _SERVICE_ADDRESS.match(value):
        return True
    return bool(_SERVICE_LINK.search(name))


def _as_problem(details: dict[str, Any]) -> Problem:
    where = PREFIX + str(details["loc"][0]).upper() if details["loc"] else "settings"
    field = Settings.model_fields.get(str(details["loc"][0])) if details["loc"] else None
    meaning = field.description or "" if field else ""
    if details["type"] == "missing":
        return Problem(where, "is required and not set", meaning)
    if details["type"] == "extra_forbidden":
        return Problem(where, "is not a setting")
    value = str(details["input"])
    if _SERVICE_ADDRESS.match(value):
        meaning = "Kubernetes set it for a Service of that name: set enableServiceLinks: false"
    message = redact(details["msg"].removeprefix("Value error, "))
    return Problem(where, f"{message}; found {_shown(where, value)}", meaning)


def _shown(where: str, value: str) -> str:
    """A value as an error may show it: never credentials."""
    if where == PREFIX + "PUSHGATEWAY_URL":
        return "a value that is not shown, as it may hold a password"
    value = redact(value)
    return repr(value if len(value) <= 100 else value[:100] + "…")
