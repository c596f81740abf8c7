"""How time and memory of each stage grow with its input: four sizes, and the fitted exponent.

    python -m benchmarks.growth

Each stage runs at each size in three processes of its own, so that its peak memory is its own; the
time is the shortest, as whatever else the machine does only adds to it. The exponent is the slope
of the logarithms (least squares), once what every size needs is taken off: 1 is linear. What is
measured is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import machine_now, versions
from benchmarks.output import leave
from job.demo.s3_server import S3Server

ROOT: Final = Path(__file__).resolve().parent.parent
BUCKET: Final = "growth"
MIB: Final = 1 << 20
REPEATS: Final = 3
FLAT: Final = 0.1
"""What grows by less than this share of its smallest value over all sizes has exponent 0: its slope
would be noise."""


@dataclass(frozen=True)
class Stage:
    """What is measured at each of the sizes."""

    unit: str
    sizes: tuple[int, ...]
    prepare: Callable[[Path, int], None]
    """Makes the input in a folder; not measured, and in another process."""
    measure: Callable[[Path, int], None]
    imports: tuple[str, ...]
    """In its memory, but not in its time."""


def rows_file(folder: Path, size: int) -> None:
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


def checkpoint_file(folder: Path, size: int) -> None:
    (folder / "checkpoint").mkdir()
    with (folder / "checkpoint" / "optimizer.pt").open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))


def upload_checkpoint(folder: Path, size: int) -> None:
    """Hashed, uploaded, its manifest written."""
    from job.checkpoint.transfer import upload_folder
    from job.storage import open_storage

    storage = open_storage(f"s3://{BUCKET}/upload-{size}")
    upload_folder(storage, "checkpoints/1/", folder / "checkpoint", 1)


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


STAGES: Final = {
    "data": Stage(
        "rows",
        (5_000, 10_000, 20_000, 40_000),
        rows_file,
        prepare_rows,
        ("job.config", "job.dataset", "transformers.utils.chat_template_utils"),
    ),
    "checkpoint upload": Stage(
        "MiB",
        (16, 32, 64, 128),
        checkpoint_file,
        upload_checkpoint,
        ("job.checkpoint.transfer", "job.storage"),
    ),
    "model load": Stage(
        "million parameters",
        (25, 50, 100, 200),
        random_model,
        load_model,
        ("job.engines.reference", "peft", "transformers.models.llama.modeling_llama"),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes (1)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "growth.json")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        return _one(*arguments.one)
    facts = machine_now()
    with S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        stages = {name: _grown(name, arguments.scale) for name in arguments.stages}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions(),
        "stages": stages,
    }
    leave(arguments.out, result, markdown(result))
    return 0


def _grown(name: str, scale: float) -> dict[str, Any]:
    sizes = [max(1, round(size * scale)) for size in STAGES[name].sizes]
    found = [_measured(name, size) for size in sizes]
    return {
        "unit": STAGES[name].unit,
        "sizes": sizes,
        "seconds": [seconds for seconds, _ in found],
        "peak_bytes": [peak for _, peak in found],
        "seconds_exponent": exponent(sizes, [seconds for seconds, _ in found]),
        "memory_exponent": exponent(sizes, [peak for _, peak in found]),
    }


def _measured(name: str, size: int) -> tuple[float, int]:
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        _in_process(name, "prepare", folder, size)
        found = [_in_process(name, "measure", folder, size) for _ in range(REPEATS)]
    return min(seconds for seconds, _ in found), max(peak for _, peak in found)


def _in_process(name: str, step: str, folder: str, size: int) -> tuple[float, int]:
    command = [sys.executable, "-m", "benchmarks.growth", "--one", name, step, folder, str(size)]
    subprocess.run(command, cwd=ROOT, check=True)
    seconds, peak = json.loads((Path(folder) / "found.json").read_text())
    return seconds, peak


def _one(name: str, step: str, folder: str, size: str) -> int:
    stage = STAGES[name]
    for module in stage.imports:
        importlib.import_module(module)
    work = getattr(stage, step)
    began = time.perf_counter()
    work(Path(folder), int(size))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (Path(folder) / "found.json").write_text(json.dumps([seconds, peak]))
    return 0


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log(value - fixed) over log(size), by least squares.

    `fixed` is what a line through the two smallest sizes leaves at size 0, if that is positive:
    imports, and memory that every size needs.
    """
    if max(values) < values[0] * (1 + FLAT):
        return 0.0
    slope = (values[1] - values[0]) / (sizes[1] - sizes[0])
    fixed = min(max(0.0, values[0] - slope * sizes[0]), 0.99 * min(values))
    xs = [math.log(size) for size in sizes]
    ys = [math.log(value - fixed) for value in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return round(above / sum((x - mean_x) ** 2 for x in xs), 3)


def markdown(result: Mapping[str, Any]) -> str:
    lines = ["# How the stages grow", "", f"{result['date']}; seconds and peak memory.", ""]
    for name, stage in result["stages"].items():
        lines += [
            f"## {name}",
            "",
            f"| {stage['unit']} | seconds | peak MiB |",
            "| --- | --- | --- |",
        ]
        for size, seconds, peak in zip(
            stage["sizes"], stage["seconds"], stage["peak_bytes"], strict=True
        ):
            lines.append(f"| {size} | {seconds:.2f} | {peak / MIB:.0f} |")
        time_exponent, memory_exponent = stage["seconds_exponent"], stage["memory_exponent"]
        lines += ["", f"Exponents: time {time_exponent}, memory {memory_exponent}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
