"""Runs the real job in good and in bad situations and records the series that the alerts ask for.

    python scripts/record_series.py            all situations, about five minutes
    python scripts/record_series.py healthy    only those

Writes `tests/k8s/recorded/<situation>.json`. The tiny model trains in seconds what takes hours
elsewhere, so time is stretched: what was sampled every quarter of a second is written down as if
scraped every 30 s. Ages and times of day are stretched with it; measured durations are not, nor is
the time that a pod lingers: 20 s are one scrape, if that, and then its series are stale.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from job.demo.s3_server import S3Server
from job.ledger import read_record
from job.storage import open_storage
from tests.e2e.jobs import JobProcess
from tests.storage.wire import Answer, Call, interposed, s3_error
from tests.tiny import build_model, write_rows

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests" / "k8s" / "recorded"

SAMPLE_SECONDS = 0.25
SCRAPE_SECONDS = 30
STRETCH = SCRAPE_SECONDS / SAMPLE_SECONDS
DEADLINE_SECONDS = 180
AFTERWARDS = 30
"""Samples without any series at the end: what is to be told of a pod is told when it is gone."""

HANGS = """
import sys, time
from job.stages.monitor import Monitor
stepped = Monitor.stepped
def hang(self, step):
    stepped(self, step)
    if step.step == 4:
        time.sleep(600)
Monitor.stepped = hang
from job.__main__ import cli
cli()
"""
HANGS_AT_ONCE = """
import time
from job.stages.monitor import Monitor
Monitor.alive = lambda self: time.sleep(600)
from job.__main__ import cli
cli()
"""


class Recording:
    """The series of one run, sample by sample; `_` where there was none."""

    def __init__(self) -> None:
        alerts = (ROOT / "helm" / "files" / "alerts.yaml").read_text()
        self._wanted = set(re.findall(r"\bforge_\w+", alerts))
        self._began = time.time()
        self._series: dict[str, list[str]] = {}
        self._samples = 0
        self._gone: set[str] = set()

    def sample(self, text: str, pod: str) -> None:
        """One scrape of the pod's `/metrics`; empty where it did not answer. The first with an exit
        code is the last."""
        if pod in self._gone:
            return
        for family in text_string_to_metric_families(text):
            for found in family.samples:
                if found.name in self._wanted:
                    labels = {"namespace": "ml", "pod": pod, "run_id": "r"} | found.labels
                    inner = ",".join(f'{name}="{value}"' for name, value in labels.items())
                    values = self._series.setdefault(f"{found.name}{{{inner}}}", [])
                    values += ["_"] * (self._samples - len(values))
                    values.append(self._stretched(found.name, found.value))
        self._samples += 1
        if "\nforge_exit_code " in text:
            self.gone(pod)

    def gone(self, pod: str) -> None:
        """The scrape that finds no pod ends its series."""
        if pod in self._gone:
            return
        self._gone.add(pod)
        for name, values in self._series.items():
            if f'pod="{pod}"' in name:
                values += ["_"] * (self._samples - len(values)) + ["stale"]
        self._samples += 1

    def _stretched(self, name: str, value: float) -> str:
        if name.endswith("_timestamp_seconds"):
            value = (value - self._began) * STRETCH
        elif name == "forge_at_risk_seconds":
            value *= STRETCH
        return f"{value:.6g}".replace("nan", "NaN").replace("inf", "Inf")

    def write(self, path: Path) -> None:
        data = {
            "interval": f"{SCRAPE_SECONDS}s",
            "samples": self._samples + AFTERWARDS,
            "series": {name: _packed(values) for name, values in sorted(self._series.items())},
        }
        path.write_text(json.dumps(data, indent=1) + "\n")


def _packed(values: list[str]) -> str:
    """promtool's notation: `7x3` is four samples of 7, `_x3` three that are missing."""
    parts = []
    for value, group in groupby(values):
        count = len(list(group))
        repeated = f"{value}x{count if value == '_' else count - 1}"
        parts.append(value if count == 1 or "N" in value or "I" in value else repeated)
        if count > 1 and ("N" in value or "I" in value):
            parts += [value] * (count - 1)
    return " ".join(parts)


class Situations:
    """Each records one run in a bucket of its own."""

    def __init__(self, server: S3Server, model: Path, folder: Path) -> None:
        self._server, self._model, self._folder = server, model, folder
        self._bucket, self._env = "", dict[str, str]()

    def record(self, name: str) -> None:
        self._bucket = f"record-{uuid.uuid4().hex}"
        self._server.create_bucket(self._bucket)
        self._bring_rows(70)
        self._env = {
            "FORGE_RUN_ID": "r",
            "FORGE_DATASET_URI": f"s3://{self._bucket}/rows.jsonl",
            "FORGE_OUTPUT_URI": f"s3://{self._bucket}/out",
            "FORGE_PROFILE": "fast_dev",
            "FORGE_MODEL_FAMILY": "smollm2",
            "FORGE_MODEL": str(self._model),
            "FORGE_ENGINE": "reference",
            "FORGE_LEARNING_RATE": "0.002",
            "FORGE_MAX_STEPS": "60",
            "FORGE_EVAL_MAX_ROWS": "4",
            "FORGE_EVAL_STEPS": "20",
            "FORGE_SAVE_STEPS": "10",
            "FORGE_METRICS_LINGER_SECONDS": "2",
            "FORGE_WORK_DIR": str(self._folder / "work"),
            "FORGE_LOG_FORMAT": "json",
            "HF_HUB_OFFLINE": "1",
        }
        recording = Recording()
        getattr(self, name)(recording)
        recording.write(RECORDED / f"{name}.json")

    def _bring_rows(self, count: int) -> None:
        rows = write_rows(self._folder / "rows.jsonl", count)
        open_storage(f"s3://{self._bucket}").upload("rows.jsonl", rows)

    def healthy(self, recording: Recording) -> None:
        """Preempted once, resumed, finished."""
        self._attempt(recording, "a", ends=75, preempt_at=25)
        self._attempt(recording, "b", ends=0)

    def diverging(self, recording: Recording) -> None:
        """The largest learning rate, and an adapter scaled until its products overflow."""
        huge = {"FORGE_LEARNING_RATE": "0.99", "FORGE_LORA_ALPHA": str(10**20)}
        self._attempt(recording, "a", ends=81, more=huge)

    def overfitting(self, recording: Recording) -> None:
        """Few rows, read very often, with much room to learn them by heart."""
        self._bring_rows(10)
        more = {
            "FORGE_MODEL": str(_sure_of_itself(self._model, self._folder / "sure")),
            "FORGE_LORA_R": "64",
            "FORGE_LORA_ALPHA": "64",
            "FORGE_LEARNING_RATE": "0.01",
            "FORGE_MAX_STEPS": "300",
            "FORGE_PER_DEVICE_TRAIN_BATCH_SIZE": "6",
            "FORGE_GRADIENT_ACCUMULATION_STEPS": "1",
            "FORGE_EVAL_FRACTION": "0.4",
            "FORGE_EVAL_STEPS": "10",
            "FORGE_EARLY_STOPPING_PATIENCE": "0",
            "FORGE_SAVE_STEPS": "50",
        }
        self._attempt(recording, "a", ends=0, more=more)

    def store_fails(self, recording: Recording) -> None:
        """No file of a checkpoint gets into the store."""

        def refuse(call: Call) -> Answer | None:
            is_upload = call.method in ("PUT", "POST") and "/checkpoints/" in call.path
            return s3_error(503, "SlowDown") if is_upload else None

        with interposed(self._server, refuse) as url:
            more = {"AWS_ENDPOINT_URL_S3": url, "AWS_MAX_ATTEMPTS": "2"}
            more |= {"FORGE_MAX_STEPS": "100000"}
            self._attempt(recording, "a", samples=160, more=more)

    def hanging(self, recording: Recording) -> None:
        """A step that never ends, in a process that still answers."""
        command = (sys.executable, "-c", HANGS)
        self._attempt(recording, "a", samples=150, command=command)

    def hanging_at_once(self, recording: Recording) -> None:
        """The same with the first micro-batch, before any step."""
        command = (sys.executable, "-c", HANGS_AT_ONCE)
        self._attempt(recording, "a", samples=150, command=command)

    def damaged(self, recording: Recording) -> None:
        """The newest checkpoint rots between two attempts."""
        self._attempt(recording, "a", ends=75, preempt_at=25)
        storage = open_storage(f"s3://{self._bucket}/out/r")
        found = read_record(storage)
        assert found is not None
        newest = found[0].checkpoints[-1].key
        victim = max(storage.list(newest), key=lambda info: info.size)
        storage.write(victim.key, b"rotten")
        self._attempt(recording, "b", ends=0)

    def grace_too_short(self, recording: Recording) -> None:
        """One second is less than a stop takes."""
        self._attempt(recording, "a", ends=0, more={"FORGE_GRACE_SECONDS": "1"})

    def _attempt(
        self,
        recording: Recording,
        pod: str,
        *,
        ends: int | None = None,
        preempt_at: int | None = None,
        samples: int = 0,
        command: tuple[str, ...] = (sys.executable, "-m", "job"),
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Until it ends with the code `ends`, or `samples` were taken."""
        log = self._folder / "log"
        job = JobProcess(self._env | dict(more or {}), log, command=command)
        try:
            until = time.monotonic() + DEADLINE_SECONDS
            taken = 0
            while job.is_running() and time.monotonic() < until and taken < (samples or 10**9):
                tick = time.monotonic()
                recording.sample(_asked(job), pod)
                taken += bool(job.progress().get("phase") == "training")
                if preempt_at is not None and job.progress().get("step", 0) >= preempt_at:
                    job.signal(signal.SIGTERM)
                    preempt_at = None
                time.sleep(max(0.0, SAMPLE_SECONDS - (time.monotonic() - tick)))
            if ends is not None:
                code = job.ended().code
                assert code == ends, f"exit {code}:\n{log.read_text()[-3000:]}"
        finally:
            job.kill()
        recording.gone(pod)


def _sure_of_itself(model: Path, folder: Path) -> Path:
    """The model with a larger head. Random weights of the usual size keep all tokens about as
    likely as each other, whatever an adapter does below: nothing could be learned by heart."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 20
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def _asked(job: JobProcess) -> str:
    try:
        return job.get("/metrics")
    except OSError:
        return ""


NAMES = (
    "healthy",
    "diverging",
    "overfitting",
    "store_fails",
    "hanging",
    "hanging_at_once",
    "damaged",
    "grace_too_short",
)


def main(names: list[str], say: Callable[[str], None] = print) -> None:
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, S3Server() as server:
        os.environ.update(server.env)
        model = build_model(Path(name) / "model")
        situations = Situations(server, model, Path(name))
        for situation in names or NAMES:
            situations.record(situation)
            say(f"{situation} recorded")


if __name__ == "__main__":
    main(sys.argv[1:])
