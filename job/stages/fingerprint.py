"""What a run's identity is made of: settings first, then data, template, engine and versions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import count, takewhile
from typing import Any

from job.config import Settings
from job.dataset import DataFile, DataObject
from job.errors import Problem, SettingsError
from job.ledger import RunRecord, compare, flatten

_log = logging.getLogger(__name__)

_LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "forge-job",
    "peft",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "unsloth",
)


def of_settings(settings: Settings, ranks: int = 1) -> dict[str, Any]:
    """The part that is known before anything is fetched."""
    h = settings.hyperparameters()
    return flatten(
        {
            "dataset_uri": ",".join(settings.dataset_uri),
            "model": settings.base_model,
            "model_family": settings.model_family,
            "loss_on": settings.loss_on,
            "invalid_rows": settings.invalid_rows,
            "overlong_rows": settings.overlong_rows,
            "split": {
                "eval_fraction": settings.eval_fraction,
                "eval_max_rows": settings.eval_max_rows,
            },
            "eval_steps": settings.eval_steps,
            "early_stopping_patience": settings.early_stopping_patience,
            "lora": {"r": h.lora_r, "alpha": h.lora_alpha, "dropout": h.lora_dropout},
            "effective_batch_size": h.effective_batch_size * ranks,
            "world_size": ranks,
            "max_seq_length": h.max_seq_length,
            "max_steps": h.max_steps,
            "num_train_epochs": h.num_train_epochs,
            "learning_rate": h.learning_rate,
            "warmup": {"steps": h.warmup_steps, "ratio": h.warmup_ratio},
            "weight_decay": h.weight_decay,
            "lr_scheduler_type": h.lr_scheduler_type,
            "optim": h.optim,
            "seed": h.seed,
            "provenance": {"per_device_train_batch_size": h.per_device_train_batch_size},
        }
    )


def of_run(
    settings: Settings,
    files: Sequence[DataFile],
    model_revision: str,
    template_sha256: str,
    engine: str,
    precision: str,
    rows: dict[str, int],
    ranks: int = 1,
) -> dict[str, Any]:
    """The whole fingerprint. Compare with `job.ledger.compare`."""
    sources = [file.source for file in files]
    return of_settings(settings, ranks) | flatten(
        {
            "data": [{"uri": s.uri, "sha256": s.sha256, "size": s.size} for s in sources],
            "rows": rows,
            "model_revision": model_revision,
            "template_sha256": template_sha256,
            "engine": engine,
            "precision": precision,
            "versions": library_versions(),
            "provenance": {
                "etags": [s.etag for s in sources],
                "version_ids": [s.version_id for s in sources],
            },
        }
    )


def recorded(record: RunRecord) -> dict[str, Any]:
    """The record's fingerprint; one of an earlier release was made by a single process."""
    return {"world_size": 1} | record.fingerprint if record.fingerprint else {}


def at_same_batch(settings: Settings, record: RunRecord, ranks: int) -> Settings:
    """Where another number of ranks is accepted: with the accumulation that leaves an optimizer
    step what it was. Raises `SettingsError` where there is none."""
    h = settings.hyperparameters()
    begun = record.checkpoints or record.adapter
    accepted = "world_size" in settings.allow_fingerprint_change
    # Not by the world size recorded last: the attempt after the one that changed it is the same.
    if not accepted or not begun or h.effective_batch_size * ranks == record.effective_batch_size:
        return settings
    size = h.per_device_train_batch_size * ranks
    accumulation, rest = divmod(record.effective_batch_size, size)
    if rest or not accumulation:
        found = (
            f"a step of this run has {record.effective_batch_size} conversations, which {ranks} "
            f"processes with micro-batches of {size // ranks} can't share evenly"
        )
        hint = (
            "set FORGE_PER_DEVICE_TRAIN_BATCH_SIZE to a value that divides it, or change the "
            "number of processes"
        )
        raise SettingsError(Problem("FORGE_ALLOW_FINGERPRINT_CHANGE", found, hint))
    _log.info(
        "%d processes: %d micro-batches a step, which stays one of %d conversations",
        ranks,
        accumulation,
        record.effective_batch_size,
    )
    return settings.model_copy(update={"gradient_accumulation_steps": accumulation})


def refuse_other_settings(record: RunRecord, settings: Settings, ranks: int = 1) -> None:
    """Hold against a run's record what is known before anything is fetched.

    Raises `FingerprintMismatch`. Fields that only one release knows are left to the whole.
    """
    _compare_settings(record, settings, ranks, settings.allow_fingerprint_change)


def refuse_to_finish_again(record: RunRecord, settings: Settings, ranks: int) -> None:
    """As `refuse_other_settings`, for a run that is finished: to accept a change of what was
    trained would train nothing. Only who shared the work may differ."""
    accepted = [name for name in settings.allow_fingerprint_change if name == "world_size"]
    _compare_settings(record, settings, ranks, accepted, finished=True)


def _compare_settings(
    record: RunRecord,
    settings: Settings,
    ranks: int,
    accepted: Iterable[str],
    *,
    finished: bool = False,
) -> None:
    current, before = of_settings(settings, ranks), recorded(record)
    known = current.keys() & before.keys()
    compare(
        {name: before[name] for name in known},
        {name: current[name] for name in known},
        accepted,
        finished=finished,
    )


def pins(record: RunRecord, settings: Settings, ranks: int = 1) -> list[DataObject]:
    """The data objects that a run with checkpoints has to go on with; none where they may differ.

    Raises `FingerprintMismatch` for other settings, which are told before other data.
    """
    if not record.checkpoints:
        return []
    refuse_other_settings(record, settings, ranks)
    here = record.fingerprint.get("dataset_uri") == ",".join(settings.dataset_uri)
    free = any(name.split(".")[0] == "data" for name in settings.allow_fingerprint_change)
    return recorded_data(record.fingerprint) if here and not free else []


def recorded_data(fingerprint: Mapping[str, Any]) -> list[DataObject]:
    """The data objects of a whole fingerprint, in their order: what `of_run` was given."""
    return [
        DataObject(
            uri=fingerprint[f"data.{n}.uri"],
            size=fingerprint[f"data.{n}.size"],
            etag=fingerprint.get(f"provenance.etags.{n}"),
            version_id=fingerprint.get(f"provenance.version_ids.{n}"),
            sha256=fingerprint[f"data.{n}.sha256"],
        )
        for n in takewhile(lambda n: f"data.{n}.uri" in fingerprint, count())
    ]


def library_versions() -> dict[str, str | None]:
    """Installed versions; None for what is not there."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
