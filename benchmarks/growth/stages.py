"""What grows: each stage's input in four sizes, a factor of four apart, and what is timed with it.

A wide range, since the noise of a machine that wavers by a tenth would be a tenth of the exponent
over sizes that only double three times.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUCKET: Final = "growth"
MIB: Final = 1 << 20
FILE_MIB: Final = 8
"""Of one file of a checkpoint, at most."""
STEPS_ROWS: Final = 64
"""Conversations that the steps go through again and again."""


@dataclass(frozen=True)
class Stage:
    """What is measured at each of the sizes."""

    unit: str
    sizes: tuple[int, ...]
    prepare: Callable[[Path, int], None]
    """Makes the input in a folder; not measured, and in another process."""
    measure: Callable[[Path, int], None]
    """Called in several processes, one after another, on the same input."""
    imports: tuple[str, ...]
    """In its memory, but not in its time."""


def rows_and_model(folder: Path, size: int) -> None:
    from tests.tiny import build_model, write_rows

    write_rows(folder / "rows.jsonl", size)
    build_model(folder / "model")


def prepare_rows(folder: Path, _size: int) -> None:
    """The data stage: read, checked, rendered, tokenized, split, written."""
    from job.config import Settings
    from job.dataset import ChatFormat, PrepareOptions, fetch, prepare

    rows = str(folder / "rows.jsonl")
    settings = Settings(run_id="growth", dataset_uri=rows, output_uri="/nowhere")
    options = PrepareOptions.from_settings(settings)
    out = folder / f"out-{os.getpid()}"  # what another process has prepared would be used again
    prepare(fetch([rows], folder), ChatFormat.load(folder / "model"), options, out)


def checkpoint_files(folder: Path, size: int) -> None:
    """Of a part each: the embedded server copies a whole object for every part that is read of it,
    so that its own time would grow with the square of a larger file."""
    (folder / "checkpoint").mkdir()
    for begin in range(0, size, FILE_MIB):
        path = folder / "checkpoint" / f"shard-{begin:03d}.bin"
        path.write_bytes(os.urandom(min(FILE_MIB, size - begin) * MIB))


def upload_checkpoint(folder: Path, size: int) -> None:
    """Hashed, uploaded, its manifest written."""
    from job.checkpoint.transfer import upload_folder
    from job.storage import open_storage

    storage = open_storage(f"s3://{BUCKET}/checkpoint-{size}")
    stored = upload_folder(storage, "checkpoints/1/", folder / "checkpoint", 1)
    (folder / "manifest_sha256").write_text(stored.manifest_sha256)


def stored_checkpoint(folder: Path, size: int) -> None:
    checkpoint_files(folder, size)
    upload_checkpoint(folder, size)


def restore_checkpoint(folder: Path, size: int) -> None:
    """Downloaded, each file held against the manifest."""
    from job.checkpoint.transfer import download_folder
    from job.storage import open_storage

    storage = open_storage(f"s3://{BUCKET}/checkpoint-{size}")
    sha256 = (folder / "manifest_sha256").read_text()
    download_folder(storage, "checkpoints/1/", sha256, folder / f"into-{os.getpid()}")


def random_model(folder: Path, size: int) -> None:
    """About `size` million parameters in linear layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=max(1, round(size * 1e6 / (4 * 512 * 512 + 3 * 512 * 1536))),
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def load_model(folder: Path, _size: int) -> None:
    """Quantized to NF4 while it is loaded, with LoRA layers."""
    from job.engines import ReferenceEngine
    from job.profiles import PROFILES

    ReferenceEngine().load(folder / "model", PROFILES["fast_dev"])


def few_rows_and_model(folder: Path, _size: int) -> None:
    rows_and_model(folder, STEPS_ROWS)


def run_steps(folder: Path, size: int) -> None:
    """A whole run of `size` steps, with a checkpoint every 50 of them."""
    from job import load_settings, run_job

    settings = load_settings(
        run_id=f"steps-{size}-{os.getpid()}",
        dataset_uri=str(folder / "rows.jsonl"),
        output_uri=f"s3://{BUCKET}/runs",
        profile="fast_dev",
        model_family="smollm2",
        model=str(folder / "model"),
        engine="reference",
        max_steps=size,
        gradient_accumulation_steps=1,
        eval_fraction=0,
        save_steps=50,
        metrics_port=0,
        metrics_linger_seconds=0,
        work_dir=str(folder / f"work-{os.getpid()}"),
    )
    run_job(settings)


def nothing(_folder: Path, _size: int) -> None:
    """For a stage that makes its input itself."""


def build_report(_folder: Path, size: int) -> None:
    """The HTML page and the files beside it, of a run of `size` steps."""
    from benchmarks.report import finished, history
    from job.report import build

    build(finished(size), history(size), {"rows": {"train": size}}, None, 2.5)


def run_records(_folder: Path, size: int) -> None:
    """`size` runs below one output, of 1,000 steps each."""
    from benchmarks.report import finished
    from job.ledger import RECORD_KEY
    from job.storage import open_storage

    content = finished(1000).model_dump_json().encode()
    storage = open_storage(f"s3://{BUCKET}/fleet-{size}")
    for number in range(size):
        storage.write(f"run-{number:05d}/{RECORD_KEY}", content)


def summarize(_folder: Path, size: int) -> None:
    """`status --all`."""
    from job.status.all_runs import fleet_status
    from job.status.table import Selection

    uri = f"s3://{BUCKET}/fleet-{size}"
    fleet_status(uri, Selection(), as_json=False, out=io.StringIO())


_LLAMA: Final = "transformers.models.llama.modeling_llama"

STAGES: Final = {
    "data": Stage(
        "rows",
        (5_000, 20_000, 80_000, 320_000),
        rows_and_model,
        prepare_rows,
        ("job.config", "job.dataset", "transformers.utils.chat_template_utils"),
    ),
    "model load": Stage(
        "million parameters",
        (12, 48, 192, 768),
        random_model,
        load_model,
        ("job.engines.reference", "peft", _LLAMA),
    ),
    "training": Stage(
        "steps",
        (25, 100, 400, 1_600),
        few_rows_and_model,
        run_steps,
        ("job", "job.training.train", "trl.trainer.sft_trainer", "bitsandbytes", _LLAMA),
    ),
    "checkpoint upload": Stage(
        "MiB",
        (8, 32, 128, 512),
        checkpoint_files,
        upload_checkpoint,
        ("job.checkpoint.transfer", "job.storage", "boto3"),
    ),
    "restore": Stage(
        "MiB",
        (8, 32, 128, 512),
        stored_checkpoint,
        restore_checkpoint,
        ("job.checkpoint.transfer", "job.storage", "boto3"),
    ),
    "report": Stage(
        "steps",
        (2_000, 8_000, 32_000, 128_000),
        nothing,
        build_report,
        ("benchmarks.report", "job.report", "matplotlib.pyplot"),
    ),
    "status --all": Stage(
        "runs",
        (25, 100, 400, 1_600),
        run_records,
        summarize,
        ("job.status.all_runs", "job.storage", "boto3"),
    ),
}
