"""The two sides of a comparison, each a process of its own: the bare script, and the whole job.

Model, rows and S3 server are prepared once; see `benchmarks.overhead` and `benchmarks.throughput`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.figures import WARM_UP, Record
from benchmarks.models import MODELS, model_and_rows
from job.config import PREFIX, Settings
from job.dataset import ChatFormat, PrepareOptions, fetch, prepare
from job.demo.s3_server import S3Server
from job.engines import ReferenceEngine
from job.ranks.node import free_port
from job.storage import open_storage

ROOT: Final = Path(__file__).resolve().parent.parent
BUCKET: Final = "overhead"
BATCH: Final = 2
"""Rows a step, in one micro-batch: short steps, on which overhead weighs most."""
SAVE_STEPS: Final = 4
"""By default the job saves every 50 steps; here often enough to see it in a short run."""
HEARTBEAT_SECONDS: Final = 3.0
SCRAPE_SECONDS: Final = 1.0
FEWEST_STEPS: Final = max(WARM_UP, SAVE_STEPS) + 2


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    folder: Path
    model: Path
    samples: Path
    """Tokenized rows, for the bare script."""
    mean_tokens: float
    steps: int

    def settings(self, run_id: str, port: int = 0) -> dict[str, Any]:
        """Of a run of the job, with all that it does beside training switched on."""
        return {
            "run_id": run_id,
            "dataset_uri": f"s3://{BUCKET}/data/rows.jsonl",
            "output_uri": f"s3://{BUCKET}/runs",
            "profile": "fast_dev",
            "model_family": "smollm2",
            "model": str(self.model),
            "engine": "reference",
            "max_steps": self.steps,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": 1,
            "eval_fraction": 0,
            "save_steps": SAVE_STEPS,
            "heartbeat_seconds": HEARTBEAT_SECONDS,
            "metrics_port": port,
            "metrics_linger_seconds": 0,
            "log_format": "json",
            "work_dir": str(self.folder / "work"),
        }

    def saved(self) -> list[int]:
        """The steps after which both sides write a checkpoint."""
        return [*range(SAVE_STEPS, self.steps, SAVE_STEPS), self.steps]


def parsed(
    argv: Sequence[str] | None, about: str | None, name: str, *, steps: int, turns: tuple[str, int]
) -> argparse.Namespace:
    """The arguments of a comparison: `steps` and `turns` are defaults, the latter with its name."""
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--steps", type=int, default=steps, help=f"of each run (default: {steps})")
    what, count = turns
    parser.add_argument(f"--{what}", type=int, default=count, help=f"of runs (default: {count})")
    parser.add_argument("--out", type=Path, help="the JSON file (default: in benchmarks/results)")
    arguments = parser.parse_args(argv)
    if arguments.steps < FEWEST_STEPS:
        parser.error(f"--steps: at least {FEWEST_STEPS}")
    if getattr(arguments, what) < 1:
        parser.error(f"--{what}: at least 1")
    default = ROOT / "benchmarks" / "results" / f"{name}-{arguments.model}.json"
    arguments.out = arguments.out or default
    return arguments


class RunFailed(Exception):
    """A run ended with an error; the text is the end of its log."""


@contextmanager
def served(model_name: str, steps: int) -> Iterator[Bench]:
    """An S3 server with the rows, and a folder for all else; no setting of whoever runs this."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        yield _prepare(model_name, steps, Path(folder))


def _prepare(model_name: str, steps: int, folder: Path) -> Bench:
    """Model and rows as the demo has them; the rows in S3 for the job, tokenized for the script."""
    rows = folder / "rows.jsonl"
    # The shortest: one row is trained on once.
    model = model_and_rows(model_name, folder, rows, shortest=steps * BATCH)
    open_storage(f"s3://{BUCKET}").upload("data/rows.jsonl", rows)
    bench = Bench(folder, model, folder / "samples.json", 0.0, steps)
    options = PrepareOptions.from_settings(Settings(**bench.settings("data")))
    files = fetch([str(rows)], folder)
    data = prepare(files, ChatFormat.load(model), options, folder / "prepared")
    samples = [
        {"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()}
        for sample in data.train
    ]
    bench.samples.write_text(json.dumps(samples))
    tokens = sum(len(sample.input_ids) for sample in data.train)
    return replace(bench, mean_tokens=tokens / len(samples))


def run_bare(bench: Bench, name: str, **plan: Any) -> Record:
    """The bare script with the job's precision, but for what `plan` has otherwise."""
    settings = {
        "model": str(bench.model),
        "rows": str(bench.samples),
        "hyperparameters": asdict(Settings(**bench.settings("bare")).hyperparameters()),
        "precision": ReferenceEngine().training_arguments(),
        "save_steps": SAVE_STEPS,
        "output": str(bench.folder / name),
    }
    return _run(bench, name, "benchmarks.bare", settings | plan, port=None)


def run_job(bench: Bench, name: str) -> Record:
    port = free_port()
    plan = {"settings": bench.settings(name, port)}
    return _run(bench, name, "benchmarks.whole", plan, port)


def _run(bench: Bench, name: str, module: str, plan: dict[str, Any], port: int | None) -> Record:
    record, paper = bench.folder / f"{name}.record.json", bench.folder / f"{name}.plan.json"
    paper.write_text(json.dumps(plan | {"record": str(record)}))
    log = bench.folder / f"{name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(paper)], cwd=ROOT, stdout=file, stderr=file
        )
        try:
            _wait(process, port)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise RunFailed(f"{name}:\n{log.read_text()[-4000:]}")
    done = Record.parse(json.loads(record.read_text()))
    seconds = median(done.durations().values())
    print(f"{name}: {seconds:.3f} s a step", file=sys.stderr, flush=True)
    return done


def _wait(process: subprocess.Popen[bytes], port: int | None) -> None:
    """Until it ends; with a port, its metrics are scraped meanwhile as Prometheus would."""
    while True:
        try:
            process.wait(SCRAPE_SECONDS)
        except subprocess.TimeoutExpired:
            if port is not None:
                _scrape(port)
        else:
            return


def _scrape(port: int) -> None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            answer.read()
    except (urllib.error.URLError, OSError):
        return  # not up yet, or already gone
