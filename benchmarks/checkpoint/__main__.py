"""What a checkpoint costs: to training, at a stop, on restore, and in the record.

    python -m benchmarks.checkpoint

Run it on a machine that does nothing else. What is measured, and beside what, is in
benchmarks/checkpoint/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoint import stops, swaps, transfers
from benchmarks.checkpoint.figures import costs_by_side, markdown
from benchmarks.checkpoint.sink import sink
from benchmarks.machine import machine_now, versions
from benchmarks.models import demo_model
from benchmarks.output import leave
from job.config import PREFIX
from job.demo.s3_server import S3Server
from job.ranks.node import free_port
from job.storage import open_storage
from tests.ceph import CephServer
from tests.tiny import write_rows

ROOT: Final = Path(__file__).resolve().parents[2]
BUCKET: Final = "checkpoint-bench"
MODEL_MB: Final = 33
"""What SmolLM2's checkpoint with r=16 weighs by itself."""
PARTS: Final = ("cost", "stop", "restore", "ledger", "uploaders")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_now(),
        "store": arguments.store,
        "versions": versions(),
        "sizes_mb": arguments.sizes,
    }
    with tempfile.TemporaryDirectory(prefix="checkpoint-bench-") as name, _store(arguments) as env:
        os.environ.update(env)
        for part, measure in _MEASURES.items():
            if part in arguments.parts:
                result[part] = measure(arguments, Path(name))
                # A run that is cut off keeps what it has measured.
                leave(arguments.out, result, markdown(result))
    return 0


@contextmanager
def _store(arguments: argparse.Namespace) -> Iterator[dict[str, str]]:
    """The variables that reach it; it has an empty bucket."""
    with CephServer() if arguments.store == "ceph" else S3Server() as server:
        server.create_bucket(BUCKET)
        if isinstance(server, S3Server):
            _step_back(server)
        yield server.env


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[MODEL_MB, 250, 2000], help="MB")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=12, help="checkpoints a side (33 MB)")
    parser.add_argument("--stops", type=int, default=3, help="a rank")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[16, 128, 1024], help="of the runs to stop"
    )
    parser.add_argument(
        "--store",
        choices=("embedded", "ceph"),
        default="embedded",
        help="the embedded one copies a whole object for each part that is read: not for 2 GB",
    )
    parser.add_argument("--tools", type=Path, help="where other uploaders are installed")
    default = ROOT / "benchmarks" / "results" / "checkpoint.json"
    parser.add_argument("--out", type=Path, default=default)
    return parser.parse_args(argv)


def _step_back(server: S3Server) -> None:
    """The store stands for another machine: it must not take processors from any side."""
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), 19)


def _cost(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found = {}
    for size in arguments.sizes:
        work = folder / f"cost-{size}"
        work.mkdir()
        plan = {
            "model": str(demo_model()),
            "work": str(work),
            "bucket": BUCKET,
            "padding_bytes": max(0, size - MODEL_MB) << 20,
            "rounds": max(1, round(arguments.rounds * (MODEL_MB / size) ** 0.35)),
            "record": str(work / "record.json"),
        }
        command = [sys.executable, "-m", "benchmarks.checkpoint.cost", str(work / "plan.json")]
        with sink(os.environ["AWS_ENDPOINT_URL_S3"]) as (url, pid):
            (work / "plan.json").write_text(json.dumps(plan | {"store": pid}))
            env = os.environ | {"AWS_ENDPOINT_URL_S3": url}
            subprocess.run(command, check=True, cwd=ROOT, env=env)
        windows = json.loads((work / "record.json").read_text())
        found[str(size)] = costs_by_side(windows) | {"windows": windows}
        _empty(BUCKET)
    return found


def _stop(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = write_rows(folder / "rows.jsonl", 60)
    open_storage(f"s3://{BUCKET}").upload("data/rows.jsonl", rows)
    phases = {
        phase: stops.in_phase(
            _env(folder, f"stop-{phase}"), folder / f"{phase}.log", free_port(), phase
        )
        for phase in stops.PHASES
    }
    return {
        "training": {f"r={rank}": _stops(arguments, folder, rank) for rank in arguments.ranks},
        "phases": phases,
    }


def _stops(arguments: argparse.Namespace, folder: Path, rank: int) -> dict[str, Any]:
    found = []
    for n in range(arguments.stops):
        name = f"stop-{rank}-{n}"
        env = _env(folder, name) | {"FORGE_LORA_R": str(rank)}
        found.append(stops.in_training(env, folder / f"{name}.log", free_port(), n))
        _empty(BUCKET)
    made = transfers.make_folder(folder / f"same-{rank}", round(found[0]["megabytes"] * 1e6))
    ways = transfers.uploads(BUCKET, made, _tools(arguments, folder))
    _empty(BUCKET)
    fastest = min(v for v in ways.values() if isinstance(v, float))
    return {"stops": found, "fastest_upload": fastest, "uploads": ways}


def _env(folder: Path, run_id: str) -> dict[str, str]:
    return {
        "FORGE_RUN_ID": run_id,
        "FORGE_DATASET_URI": f"s3://{BUCKET}/data/rows.jsonl",
        "FORGE_OUTPUT_URI": f"s3://{BUCKET}/runs",
        "FORGE_MODEL_FAMILY": "smollm2",
        "FORGE_MODEL": str(demo_model()),
        "FORGE_ENGINE": "reference",
        "FORGE_MAX_STEPS": "6",
        "FORGE_EVAL_MAX_ROWS": "4",
        "FORGE_SAVE_STEPS": "1000",
        "FORGE_METRICS_LINGER_SECONDS": "0",
        "FORGE_WORK_DIR": str(folder / "work"),
        "FORGE_LOG_FORMAT": "json",
    }


def _restore(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found = {}
    for size in arguments.sizes:
        made = transfers.make_folder(folder / f"restore-{size}", size * 1_000_000)
        found[str(size)] = transfers.restores(BUCKET, made, folder / "scratch")
        _empty(BUCKET)
    return found


def _ledger(_arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    return {str(attempts): swaps.swaps(BUCKET, attempts) for attempts in (3, 200)}


def _uploaders(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    found = {}
    for size in arguments.sizes:
        made = transfers.make_folder(folder / f"upload-{size}", size * 1_000_000)
        found[str(size)] = transfers.uploads(BUCKET, made, _tools(arguments, folder))
        _empty(BUCKET)
    return found


_MEASURES: Final = {
    "cost": _cost,
    "stop": _stop,
    "restore": _restore,
    "ledger": _ledger,
    "uploaders": _uploaders,
}


def _tools(arguments: argparse.Namespace, folder: Path) -> Path:
    tools: Path = arguments.tools or folder / "tools"
    if not tools.exists():
        transfers.install(tools)
    return tools


def _empty(bucket: str) -> None:
    """The store keeps everything in memory."""
    storage = open_storage(f"s3://{bucket}")
    storage.delete([info.key for info in storage.list() if not info.key.startswith("data/")])


if __name__ == "__main__":
    sys.exit(main())
