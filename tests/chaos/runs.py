"""Runs short enough to be killed by the hundred, and what they give when nobody does."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from job.demo.s3_server import S3Server
from job.storage import open_storage
from tests.chaos.observer import Observer, result_of
from tests.chaos.proxy import Proxy, proxied
from tests.chaos.scenario import END_SECONDS, Scenario, Tally
from tests.tiny import build_model, write_rows
from tests.zygote import Zygote

BUCKET = "chaos"

VARIANTS: dict[str, dict[str, str]] = {
    "plain": {"FORGE_LORA_DROPOUT": "0"},
    "dropout": {"FORGE_LORA_DROPOUT": "0.05", "FORGE_SAVE_STEPS": "3"},
    "early stopping": {
        "FORGE_LORA_DROPOUT": "0.05",
        "FORGE_LEARNING_RATE": "0.3",  # can't improve the validation loss for long
        "FORGE_EVAL_STEPS": "2",
        "FORGE_EARLY_STOPPING_PATIENCE": "2",
        "FORGE_SAVE_TOTAL_LIMIT": "1",
    },
}


@dataclass
class Ground:
    """Where runs are played: a store, a proxy before it, a fork server, and reference runs."""

    zygote: Zygote
    proxy: Proxy
    endpoint_url: str
    direct: dict[str, str]
    """The environment that reaches the store past the proxy."""
    env: dict[str, str]
    """What all attempts have in common."""
    folder: Path

    def settings(self, run_id: str, variant: str, **more: str) -> dict[str, str]:
        return self.env | VARIANTS[variant] | {"FORGE_RUN_ID": run_id} | more

    def start(self, env: Mapping[str, str], log: Path, *, clock_jumps: bool = False) -> int:
        """An attempt; its process id."""
        return self.zygote.start(os.environ | dict(env), log, clock_jumps=clock_jumps)

    def ended(self, pid: int, log: Path) -> int:
        """Its exit code, once it has ended."""
        code = self.zygote.code(pid, END_SECONDS)
        if code is None:
            raise AssertionError(f"it hangs:\n{log.read_text()}")
        return code

    def run(self, env: Mapping[str, str], log: Path) -> int:
        """One attempt that is left alone; its exit code."""
        return self.ended(self.start(env, log), log)

    def observer(self, run_id: str) -> Observer:
        """Looks past the proxy."""
        return Observer(open_storage(f"s3://{BUCKET}/out/{run_id}"))


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run."""

    result: dict[str, object]
    seconds: float
    requests: int


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """Sets this process's AWS variables, for the observer."""
    folder.mkdir(parents=True, exist_ok=True)
    with S3Server() as server, Zygote() as zygote, proxied(server.endpoint_url) as (proxy, url):
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        rows = write_rows(folder / "rows.jsonl", 40)
        open_storage(f"s3://{BUCKET}").upload("data/rows.jsonl", rows)
        model = build_model(folder / "model")
        yield Ground(zygote, proxy, url, server.env, _env(folder, model, url), folder)


def _env(folder: Path, model: Path, endpoint_url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": endpoint_url,
        "FORGE_DATASET_URI": f"s3://{BUCKET}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"s3://{BUCKET}/out",
        "FORGE_PROFILE": "fast_dev",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": str(model),
        "FORGE_ENGINE": "reference",
        "FORGE_LEARNING_RATE": "0.01",
        "FORGE_MAX_STEPS": "12",
        "FORGE_PER_DEVICE_TRAIN_BATCH_SIZE": "1",
        "FORGE_EVAL_MAX_ROWS": "2",
        "FORGE_EVAL_STEPS": "5",
        "FORGE_SAVE_STEPS": "2",
        "FORGE_HEARTBEAT_SECONDS": "0.3",
        "FORGE_METRICS_PORT": "0",
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_MAX_ATTEMPTS_WITHOUT_PROGRESS": "0",
        "FORGE_WORK_DIR": str(folder / "work"),
        "FORGE_LOG_FORMAT": "json",
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
    }


def reference(place: Ground, variant: str) -> Reference:
    name = f"reference-{variant.replace(' ', '-')}"
    log = place.folder / f"{name}.log"
    before, began = len(place.proxy.requests), time.monotonic()
    code = place.run(place.settings(name, variant), log)
    if code != 0:
        raise AssertionError(f"the reference run ended with {code}:\n{log.read_text()}")
    seconds = time.monotonic() - began
    result = result_of(open_storage(f"s3://{BUCKET}/out/{name}"))
    return Reference(result, seconds, len(place.proxy.requests) - before)


def under_fire(
    place: Ground, variant: str, against: Reference, *, seed: int, strikes: int, tally: Tally
) -> None:
    """One run that is struck so often, and compared with the reference."""
    run_id = f"run-{variant.replace(' ', '-')}-{seed}"
    Scenario(
        zygote=place.zygote,
        proxy=place.proxy,
        observer=place.observer(run_id),
        env=place.settings(run_id, variant),
        folder=place.folder / run_id,
        tally=tally,
        chosen=random.Random(seed),
        span_seconds=against.seconds,
        requests=against.requests,
    ).play(strikes, against.result)
