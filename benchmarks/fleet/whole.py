"""Every request of one real run on a tiny model, from its start to its end, by stage and kind.

    python -m benchmarks.fleet.whole

The run is the job itself, in this process: preempted once, resumed, ended. Nothing is timed, so the
counts are those of any machine. What they come to in an hour is in `benchmarks.fleet.calculated`.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from benchmarks.fleet.calculated import markdown
from benchmarks.fleet.place import fresh_root
from benchmarks.fleet.requests import CLASSES
from benchmarks.machine import machine_now, versions
from benchmarks.output import leave
from job import Progress, load_settings, run_job
from job.config import Settings
from job.errors import Preempted
from job.lifecycle import StopToken
from job.metrics import Metrics
from job.storage import open_storage, s3_connection

ROOT: Final = Path(__file__).resolve().parents[2]
PART_BYTES: Final = 16 * 1024**2
_STEPS: Final = 40
_SAVE_STEPS: Final = 5
_PREEMPTED_AT: Final = 22
_PATIENCE_SECONDS: Final = 120
_UPLOADER: Final = "checkpoint-upload"
_IN_CHECKPOINT: Final = re.compile(r"/checkpoints/(\d{8}-\d{3})/(.+)")


class Tally:
    """What was sent, and in which stage. Thread-safe."""

    def __init__(self) -> None:
        self.stage = "start"
        self.sent: dict[str, Counter[str]] = defaultdict(Counter)
        self.files: dict[str, set[str]] = defaultdict(set)
        """Of each checkpoint, by its folder's name."""
        self._lock = threading.Lock()

    def before_send(self, request: Any, event_name: str, **_: Any) -> None:
        kind = CLASSES.get(event_name.rpartition(".")[2], "other")
        found = _IN_CHECKPOINT.search(unquote(urlsplit(request.url).path))
        with self._lock:
            self.sent[self._stage_of(kind, bool(found))][kind] += 1
            if found and kind == "PUT":
                self.files[found[1]].add(found[2])

    def _stage_of(self, kind: str, in_checkpoint: bool) -> str:
        """Uploads go on beside whatever the run does, restores come before the model is loaded."""
        if in_checkpoint and kind == "GET":
            return "restore"
        if in_checkpoint or threading.current_thread().name.startswith(_UPLOADER):
            return "checkpoints"
        return self.stage

    def uploaded(self, checkpoints: int) -> None:
        """Wait for so many: one that is overtaken by the next is given up, on a slow machine."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with self._lock:
                if sum("manifest.json" in names for names in self.files.values()) >= checkpoints:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"{checkpoints} checkpoints did not come within {_PATIENCE_SECONDS} s")

    def taken(self) -> dict[str, Any]:
        """All since the last time."""
        with self._lock:
            stages = {stage: dict(sorted(kinds.items())) for stage, kinds in self.sent.items()}
            counts = {len(names - {"manifest.json"}) for names in self.files.values()}
            found = {"stages": stages, "checkpoints": len(self.files), "files": sorted(counts)}
            self.sent.clear()
            self.files.clear()
        return found


@contextmanager
def watched(tally: Tally) -> Iterator[None]:
    """Every client that is opened tells `tally`, and the run's phases name its stages."""
    names: dict[str, Any] = vars(s3_connection)
    opened, entered = names["open_client"], Metrics.phase

    def open_client(where: str, observer: Any) -> Any:
        client: Any = opened(where, observer)
        client.meta.events.register("before-send.s3", tally.before_send)
        return client

    def phase(metrics: Metrics, name: Any) -> None:
        tally.stage = "end" if name in ("finished", "preempted") else name
        entered(metrics, name)

    names["open_client"] = open_client
    setattr(Metrics, "phase", phase)  # noqa: B010 (a method is replaced)
    try:
        yield
    finally:
        names["open_client"] = opened
        setattr(Metrics, "phase", entered)  # noqa: B010


def measured(root: str, folder: Path) -> dict[str, Any]:
    """Two attempts of a run, and a file in parts."""
    settings = _prepared(root, folder)
    tally = Tally()
    with watched(tally):
        attempts = [
            _attempt(settings, tally, begin=0, end=_PREEMPTED_AT),
            _attempt(settings, tally, begin=_PREEMPTED_AT, end=_STEPS),
        ]
        in_parts = {"bytes": 3 * PART_BYTES, **_file_in_parts(root, folder, tally)}
    return {"attempts": attempts, "file_in_parts": in_parts}


def _prepared(root: str, folder: Path) -> Settings:
    """Data and model lie in the store, as they do in a cluster without a way out."""
    from tests.tiny import build_model, write_rows

    storage = open_storage(root)
    storage.upload("data/rows.jsonl", write_rows(folder / "rows.jsonl", 70))
    for path in build_model(folder / "model").iterdir():
        storage.upload(f"model/{path.name}", path)
    return load_settings(
        run_id="run",
        dataset_uri=f"{root}/data/rows.jsonl",
        output_uri=f"{root}/runs",
        model=f"{root}/model/",
        model_family="smollm2",
        engine="reference",
        profile="fast_dev",
        work_dir=str(folder / "work"),
        max_steps=_STEPS,
        save_steps=_SAVE_STEPS,
        eval_steps=2 * _SAVE_STEPS,
        eval_max_rows=8,
        heartbeat_seconds=3600,  # none: they go by the clock, and each is one PUT
        metrics_port=0,
        metrics_linger_seconds=0,
    )


def _attempt(settings: Settings, tally: Tally, begin: int, end: int) -> dict[str, Any]:
    """From one step to another, where it is preempted unless the run ends there."""
    stop = StopToken()
    tally.stage = "start"

    def note(progress: Progress) -> None:
        tally.uploaded((progress.step - 1) // _SAVE_STEPS - begin // _SAVE_STEPS)
        if progress.step == end < _STEPS:
            stop.preempt(signal.SIGTERM)

    try:
        run_job(settings, on_progress=note, stop=stop)
    except Preempted:
        if end == _STEPS:
            raise
    return tally.taken()


def _file_in_parts(root: str, folder: Path, tally: Tally) -> dict[str, dict[str, int]]:
    """What a file of three parts takes up, and down again."""
    path, storage, found = folder / "large", open_storage(root), {}
    path.write_bytes(bytes(3 * PART_BYTES))
    tally.stage = "upload"
    storage.upload("large", path)
    found["upload"] = tally.taken()["stages"]["upload"]
    tally.stage = "download"
    storage.download("large", folder / "again")
    found["download"] = tally.taken()["stages"]["download"]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    with (
        tempfile.TemporaryDirectory(prefix="fleet-run-") as name,
        fresh_root(arguments.output) as root,
    ):
        result: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine_now(),
            "versions": versions(),
            "store": "given" if arguments.output else "embedded",
            **measured(root, Path(name)),
        }
    leave(arguments.out, result, markdown(result))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", help="s3://bucket/prefix of a store of your own")
    default = ROOT / "benchmarks" / "results" / "fleet-run.json"
    parser.add_argument("--out", type=Path, default=default)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
