"""From a process's start to its first training step: the job beside a bare TRL script.

    python -m benchmarks.startup

Three sides in turns, each in a process of its own: the bare script, the job's first attempt, and
its second after a preemption, on the same volume. Method and targets: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.machine import machine_now, versions
from benchmarks.models import MODELS, job_env, model_and_rows
from benchmarks.output import leave
from job.config import PREFIX
from job.demo.s3_server import S3Server
from job.storage import open_storage

ROOT: Final = Path(__file__).resolve().parents[2]
BUCKET: Final = "startup"
TARGETS: Final = {"first": 1.1, "second": 0.6}
"""At most so many times the bare script's time."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of the three sides (default: 3)")
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    results = ROOT / "benchmarks" / "results"
    parser.add_argument("--out", type=Path, default=results / "startup.json")
    arguments = parser.parse_args(argv)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    facts = machine_now()
    with tempfile.TemporaryDirectory(prefix="startup-") as temporary, S3Server() as server:
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        folder = Path(temporary)
        rows = folder / "rows.jsonl"
        model = model_and_rows(arguments.model, folder, rows)
        open_storage(f"s3://{BUCKET}").upload("data/rows.jsonl", rows)
        rounds = [one_round(folder, model, number) for number in range(arguments.rounds)]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions(),
        "model": arguments.model,
        "rounds": rounds,
        **ratios(rounds),
    }
    leave(arguments.out, result, table(result))
    return 0


def one_round(folder: Path, model: Path, number: int) -> dict[str, dict[str, float]]:
    """Seconds from the process's start to each mark, of each side."""
    bare = _bare(folder, model, number)
    env = _job_env(folder, model, number)
    return {"bare": bare, "first": _job(folder, env), "second": _job(folder, env)}


def _bare(folder: Path, model: Path, number: int) -> dict[str, float]:
    record, plan = folder / "bare.json", folder / "plan.json"
    plan.write_text(
        json.dumps(
            {
                "model": str(model),
                "rows": str(folder / "rows.jsonl"),
                "output": str(folder / f"bare-{number}"),
                "record": str(record),
            }
        )
    )
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.startup.bare", str(plan)]
    with (folder / "bare.log").open("w") as log:
        subprocess.run(command, cwd=ROOT, check=True, stdout=log, stderr=log)
    return _since(began, record)


def _job_env(folder: Path, model: Path, number: int) -> dict[str, str]:
    return job_env(
        BUCKET,
        f"startup-{number}",
        model,
        folder,
        PER_DEVICE_TRAIN_BATCH_SIZE="2",
        GRADIENT_ACCUMULATION_STEPS="1",
        METRICS_PORT="0",
        METRICS_LINGER_SECONDS="0",
        LOG_FORMAT="json",
    )


def _job(folder: Path, env: Mapping[str, str]) -> dict[str, float]:
    """One attempt, preempted once its second step has begun."""
    record = folder / "job.json"
    record.unlink(missing_ok=True)
    began = time.time()
    command = [sys.executable, "-m", "benchmarks.startup.whole", str(record)]
    with (folder / "job.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(env), stdout=log, stderr=log)
        while not (record.exists() and "first step" in record.read_text()):
            if process.poll() is not None:
                raise SystemExit((folder / "job.log").read_text()[-3000:])
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    return _since(began, record)


def _since(began: float, record: Path) -> dict[str, float]:
    marks = json.loads(record.read_text())
    return {name: round(moment - began, 3) for name, moment in marks.items()}


def ratios(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Medians by side, and both attempts' ratios to the bare script's of the same round."""
    sides = {side: median(r[side]["first step"] for r in rounds) for side in rounds[0]}
    return {
        "seconds": sides,
        "ratios": {
            side: round(median(r[side]["first step"] / r["bare"]["first step"] for r in rounds), 3)
            for side in TARGETS
        },
    }


def table(result: Mapping[str, Any]) -> str:
    lines = [
        "# From the process's start to the first training step",
        "",
        f"{result['date']}, {result['model']}, {len(result['rounds'])} rounds, medians.",
        "",
        "| side | mark | seconds since the start |",
        "| --- | --- | --- |",
    ]
    for side in ("bare", "first", "second"):
        for mark in result["rounds"][0][side]:
            seconds = median(r[side][mark] for r in result["rounds"])
            lines.append(f"| {side} | {mark} | {seconds:.2f} |")
    lines.append("")
    for side, most in TARGETS.items():
        ratio = result["ratios"][side]
        verdict = "met" if ratio <= most else "MISSED"
        lines.append(
            f"- {side} attempt to the bare script: {ratio:.2f} (at most {most}): {verdict}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
