"""`make demo`: the whole job on this machine, through the very code a cluster runs.

A real 135M model, real prompts of a public leaderboard, a real S3 server in its own process; the
first attempt is preempted half-way by a SIGTERM, the second resumes it and finishes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from job.demo.assets import DEFAULT_CACHE, fetch_leaderboard, fetch_model
from job.demo.bfcl import DEMO, convert, write
from job.demo.copied import BUCKET, OUTPUT_URI, RUN_ID, copy, refuse_foreign
from job.demo.model import prepare_model
from job.demo.s3_server import S3Server
from job.errors import JobError, Preempted
from job.ledger import RunRecord, read_record
from job.ranks.node import free_port
from job.storage import open_storage

PREEMPT_AT: Final = 0.5
"""Share of the steps after which the first attempt is preempted."""

SETTINGS: Final[Mapping[str, str]] = {
    "FORGE_RUN_ID": RUN_ID,
    "FORGE_PROFILE": "fast_dev",
    "FORGE_MODEL_FAMILY": "smollm2",
    "FORGE_ENGINE": "reference",
    "FORGE_METRICS_LINGER_SECONDS": "0",
}
_SHOWN_METRICS: Final = (
    "forge_run_phase",
    "forge_global_step",
    "forge_train_loss",
    "forge_eta_seconds",
    "forge_tokens_total",
    "forge_checkpoint_last_step",
    "forge_safe_to_preempt",
)


@dataclass(frozen=True)
class _Job:
    """The job's process and where it shows its progress."""

    process: subprocess.Popen[bytes]
    url: str

    def get(self, path: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return None  # not up yet, or already gone


def demo(
    output: Path, cache: Path = DEFAULT_CACHE, overrides: Mapping[str, str] | None = None
) -> int:
    """Run the demo; leaves a copy of the run's S3 folder in `output`. Returns an exit code.

    `overrides` are settings that replace the demo's own. Puts the local S3 server into this
    process's environment. Raises `JobError` when an attempt ends otherwise than it should, and
    `SettingsError` where `output` holds anything else.
    """
    refuse_foreign(output)
    began = time.monotonic()
    _say("preparing the model and the data (downloaded once, about 95 MB)")
    model = prepare_model(fetch_model(cache), (cache / "smollm2-135m-instruct").resolve())
    rows = cache / "demo-rows.jsonl"
    conversion = convert(
        fetch_leaderboard(cache),
        DEMO.categories,
        max_chars=DEMO.max_chars,
        unique_tools=DEMO.unique_tools,
    )
    write(conversion.rows, rows)
    with S3Server() as server:
        server.create_bucket(BUCKET)
        env = _environment(server, model, cache) | dict(overrides or {})
        os.environ.update(server.env)
        open_storage(f"s3://{BUCKET}").upload("data/train.jsonl", rows)
        _say(f"S3 server at {server.endpoint_url}, data at s3://{BUCKET}/data/train.jsonl")
        _first_attempt(env)
        _second_attempt(env)
        run = open_storage(f"{OUTPUT_URI}/{RUN_ID}")
        found = read_record(run)
        if found is None:
            raise JobError("the run left no record")
        copy(run, output)
    _summarize(found[0], output, time.monotonic() - began)
    return 0


def _environment(server: S3Server, model: Path, cache: Path) -> dict[str, str]:
    own = {name for name in os.environ if name.upper().startswith("FORGE_")}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {
        **kept,
        **server.env,
        **SETTINGS,
        **DEMO.settings,
        "FORGE_MODEL": str(model),
        "FORGE_DATASET_URI": f"s3://{BUCKET}/data/",
        "FORGE_OUTPUT_URI": OUTPUT_URI,
        "FORGE_WORK_DIR": str((cache / "work").resolve()),
        "HF_HUB_OFFLINE": "1",
    }


def _first_attempt(env: dict[str, str]) -> None:
    _say("attempt 1: trains until it is preempted half-way, as on a spot node")
    with _started(env) as job:
        _wait_for(job, PREEMPT_AT / 2)
        _show_metrics(job)
        step = _wait_for(job, PREEMPT_AT)
        _say(f"SIGTERM at step {step}")
        job.process.send_signal(signal.SIGTERM)
        _expect(job, Preempted.exit_code)
    _say(f"it saved its state and ended with exit code {Preempted.exit_code} (preempted)")


def _second_attempt(env: dict[str, str]) -> None:
    _say("attempt 2: the same command; it resumes from the checkpoint in S3")
    with _started(env) as job:
        _expect(job, 0)


def _wait_for(job: _Job, share: float) -> int:
    """Until so much of the training is done, or the process has ended; the step it is at."""
    while True:
        progress = json.loads(job.get("/progress") or "{}")
        step = int(progress.get("step", 0))
        if job.process.poll() is not None or step >= share * (progress.get("max_steps") or 10**9):
            return step
        time.sleep(0.3)


@contextmanager
def _started(env: dict[str, str]) -> Iterator[_Job]:
    """The job's process; whatever happens here, it doesn't outlive the block."""
    port = free_port()
    command = [sys.executable, "-m", "job"]
    process = subprocess.Popen(command, env={**env, "FORGE_METRICS_PORT": str(port)})
    try:
        yield _Job(process, f"http://127.0.0.1:{port}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _expect(job: _Job, code: int) -> None:
    ended_with = job.process.wait()
    if ended_with != code:
        raise JobError(f"the attempt ended with exit code {ended_with} instead of {code}")


def _show_metrics(job: _Job) -> None:
    exposition = job.get("/metrics") or ""
    _say(f"live metrics at {job.url}/metrics, among them:")
    for line in exposition.splitlines():
        if line.startswith(_SHOWN_METRICS) and not line.endswith(" 0.0"):
            print(f"      {line}", flush=True)


def _summarize(record: RunRecord, output: Path, seconds: float) -> None:
    evaluation: dict[str, Any] = record.results["evaluation"]
    _say(f"done in {seconds:.0f} s. {evaluation['rows']} held-out turns, base against adapter:")
    print(f"      {'':<15}{'base':>8}{'adapter':>10}")
    for measure, base in evaluation["base"].items():
        adapter = evaluation["adapter"][measure]
        print(f"      {measure:<15}{base['rate']:>8.0%}{adapter['rate']:>10.0%}")
    for attempt in record.attempts:
        print(
            f"      attempt {attempt.number}: steps {attempt.from_step} to {attempt.to_step}, "
            f"exit code {attempt.exit_code} ({attempt.reason})"
        )
    _say("look at")
    for name, meaning in (
        ("report/report.html", "the report: open it in a browser"),
        ("adapter/", "the LoRA adapter, with its model card in README.md"),
        ("run.json", "the run's record: attempts, checkpoints, results"),
        ("dataset/report.json", "what was trained and what was left out"),
    ):
        print(f"      {output / name}: {meaning}")


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)
