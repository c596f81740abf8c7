"""The stages. Each is a command of its own, ends within eight minutes, and goes on where an
earlier try was cut off."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any, Final

from benchmarks.checkpoint import stops
from benchmarks.gpu.suite import BUCKET, ROOT, Suite, hyperparameters, run_side
from job.engines import ReferenceEngine
from job.ledger import RunRecord, read_record
from job.ranks.node import free_port
from job.storage import open_storage

SECONDS: Final = 420
"""For one attempt of the whole job."""
NEW_SIDES_SECONDS: Final = 360
"""Of a stage; a side that begins later might not end within eight minutes."""
DRY_STEPS: Final = 80
"""Of a dry run's job: tiny steps, of which some have to be left when it is stopped."""
JOB_STEPS: Final = 20
"""Of which some have to be left two seconds after the second."""
WARM_UP: Final = 3
"""Steps that are not compared: kernels are compiled, memory is allocated."""
FIRST_SHAPE: Final = "8b"
GPU_TESTS: Final = ["-W", "default", "-m", "gpu", "tests/engines", "tests/preflight"]
"""The folders that have any: what others import isn't on a bare machine. Its packages' warnings are
not ours, as they are where the versions are pinned."""
SIDES: Final = {
    "job": "benchmarks.gpu.job_side",
    "unsloth": "benchmarks.gpu.bare_unsloth",
    "trl": "benchmarks.bare",
}


def prepare(suite: Suite) -> None:
    """Models in both shapes, and the rows."""
    for shape in ("8b", "14b"):
        suite.model(shape)
    suite.rows()
    suite.keep("prepare", {"shapes": ["8b", "14b"]})


def contract(suite: Suite) -> None:
    """What both engines promise, and every test that needs a GPU."""
    if (known := suite.known("contract")) and "failed" not in known:
        return
    # A dry run is to show that the stage works; the suite that it is part of runs the rest.
    chosen = ["tests/engines/test_both_engines.py", "-k", "generates"] if suite.dry else GPU_TESTS
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *chosen]
    log = suite.folder / "logs" / "contract.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:  # at once: a stage that is cut off has left this
        done = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False)
    text = log.read_text(encoding="utf-8").strip() or "pytest said nothing"
    summary = text.splitlines()[-1].strip("= ")
    found: dict[str, Any] = {"code": done.returncode, "summary": summary}
    if done.returncode:
        found |= {"failed": summary, "log": text[-4000:]}
    suite.keep("contract", found)


def whole_job(suite: Suite) -> None:
    """Train, SIGTERM, resume, gate, adapter: over the embedded S3 server."""
    if (known := suite.known("job")) and "failed" not in known:
        return
    steps = DRY_STEPS if suite.dry else max(suite.steps, JOB_STEPS)
    settings = suite.settings(
        "whole",
        "8b",
        profile="balanced",
        max_steps=steps,
        eval_max_rows=4,
        eval_steps=steps // 2,
        gate_min_exact=0,
        grace_seconds=60,
    )
    logs = suite.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    env = suite.env(settings)
    storage = open_storage(f"s3://{BUCKET}/runs/whole")
    storage.delete([info.key for info in storage.list()])
    try:
        stopped = stops.in_training(env, logs / "stopped.log", free_port(), seed=0)
        run = stops.Running(env, logs / "resumed.log", free_port())
        log = run.ended(timeout=SECONDS)
        code = run.process.returncode
        found: dict[str, Any] = {"stopped": stopped, "code": code} | _facts(storage)
        if code:
            found |= {"failed": f"the resumed attempt ended with {code}", "log": log[-2000:]}
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        found = {"failed": "an attempt did not end as it should", "log": str(error)}
    suite.keep("job", found)


def _facts(storage: Any) -> dict[str, Any]:
    found = read_record(storage)
    if found is None:
        raise RuntimeError("the run has left no record")
    record: RunRecord = found[0]
    return {
        "status": record.status,
        "adapter": record.adapter is not None,
        "gate": record.results.get("gate"),
        "resumed_from": record.current.from_step,
        "resume_drift": record.current.resume_drift,
        "pace": record.pace.model_dump(),
        "model": record.model,
        "micro_batch": record.micro_batch.model_dump() if record.micro_batch else None,
    }


def speed(shape: str) -> Callable[[Suite], None]:
    """Job, bare Unsloth and TRL with the same rows and settings, one process each."""

    def measure(suite: Suite) -> None:
        began = time.monotonic()
        for profile, side, again in _runs(suite, shape):
            if time.monotonic() - began > NEW_SIDES_SECONDS:
                print("gpu suite: time is up; the same command goes on here", file=sys.stderr)
                return
            _measure(suite, shape, profile, side, again=again)

    return measure


def _runs(suite: Suite, shape: str) -> Iterator[tuple[str, str, bool]]:
    """Profile, side, and whether it is the job once more, with the caches of its first run."""
    if suite.dry and shape != FIRST_SHAPE:  # all sides have been gone through: the same code
        yield suite.profiles[0], "job", False
        return
    for number, profile in enumerate(suite.profiles):
        for side in _sides(suite):
            yield profile, side, False
        if number == 0:
            yield profile, "job", True


def _sides(suite: Suite) -> list[str]:
    return [side for side in SIDES if side != "unsloth" or not suite.dry]


def _measure(suite: Suite, shape: str, profile: str, side: str, *, again: bool = False) -> None:
    name = f"speed-{shape}-{profile}-{side}" + ("-again" if again else "")
    if (known := suite.known(name)) and "failed" not in known:
        return
    settings = suite.settings(
        name.replace("_", "-"),
        shape,
        profile=profile,
        max_steps=suite.steps,
        eval_fraction=0,
        save_steps=10_000,
        work_dir=str(suite.folder / f"work-{shape}"),
    )
    tokens, supervised = suite.tokenized(shape, settings)
    h = hyperparameters(settings)
    logs = suite.folder / "logs"
    plan = {
        "settings": settings,
        "model": settings["model"],
        "rows": str(tokens),
        "hyperparameters": h,
        "precision": ReferenceEngine().training_arguments(),
        "save_steps": 10_000,
        "output": str(suite.folder / "output"),
        "record": str(logs / f"{name}.record.json"),
    }
    record = run_side(SIDES[side], plan, logs / f"{name}.log")
    if "failed" not in record:
        seconds = step_seconds(record["steps"])
        batch = h["per_device_train_batch_size"] * h["gradient_accumulation_steps"]
        record |= {
            "step_seconds": seconds,
            "supervised_tokens_per_second": supervised * batch / seconds,
            "hyperparameters": h,
        }
    suite.keep(name, record)


def step_seconds(steps: list[list[float]]) -> float:
    """The median over the steps that are compared, of [step, time, loss]."""
    times = [at for _, at, _ in steps]
    durations = [after - before for before, after in pairwise(times)]
    return median(durations[WARM_UP - 1 :])


STAGES: Final[dict[str, Callable[[Suite], None]]] = {
    "prepare": prepare,
    "contract": contract,
    "job": whole_job,
    "speed-8b": speed("8b"),
    "speed-14b": speed("14b"),
}
"""In the order in which they are worth their time."""
