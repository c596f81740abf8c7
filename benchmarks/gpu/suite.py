"""What all stages share: where things lie, what was measured already, and how a side is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu import rows, shapes
from job.config import Settings
from job.dataset import ChatFormat, PrepareOptions, fetch, prepare

ROOT: Final = Path(__file__).resolve().parents[2]
BUCKET: Final = "gpu"
ROWS: Final = 160
TINY_CHARACTERS: Final = 600
SIDE_SECONDS: Final = 420
"""A side that takes longer is given up: its stage has to end within eight minutes."""


@dataclass(frozen=True)
class Suite:
    """One run of the suite. `folder` holds models and rows, `out` a JSON file a measurement."""

    device: str
    """`cuda` or `cpu`; the latter is a dry run with tiny models."""
    folder: Path
    out: Path
    steps: int
    profiles: tuple[str, ...]

    @property
    def dry(self) -> bool:
        return self.device == "cpu"

    @property
    def engine(self) -> str:
        return "reference" if self.dry else "unsloth"

    def known(self, name: str) -> dict[str, Any] | None:
        """What was measured under that name before, if it was."""
        path = self.out / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def keep(self, name: str, found: Mapping[str, Any]) -> None:
        """Written at once: a stage that is cut off later has measured this."""
        self.out.mkdir(parents=True, exist_ok=True)
        scratch = self.out / f"{name}.json.new"
        scratch.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        scratch.replace(self.out / f"{name}.json")
        print(f"gpu suite: {name}: {_brief(found)}", file=sys.stderr, flush=True)

    def model(self, shape: str) -> Path:
        return shapes.build(shape, self.folder / f"{self.device}-{shape}", tiny=self.dry)

    def rows(self) -> Path:
        path = self.folder / f"{self.device}-rows.jsonl"
        if not path.is_file():
            rows.write(path, ROWS, TINY_CHARACTERS if self.dry else 7000)
        return path

    def settings(self, run_id: str, shape: str, **more: Any) -> dict[str, Any]:
        """Of a run of the job."""
        family = "qwen-2.5" if shape == "14b" else "smollm2"  # the tokenizer is ChatML's in both
        return {
            "run_id": run_id,
            "dataset_uri": str(self.rows()),
            "output_uri": f"s3://{BUCKET}/runs",
            "model_family": family,
            "model": str(self.model(shape)),
            "engine": self.engine,
            "metrics_port": 0,
            "metrics_linger_seconds": 0,
            "log_format": "json",
            "work_dir": str(self.folder / "work"),
        } | more

    def env(self, settings: Mapping[str, Any]) -> dict[str, str]:
        return {f"FORGE_{name.upper()}": str(value) for name, value in settings.items()}

    def tokenized(self, shape: str, settings: Mapping[str, Any]) -> tuple[Path, float]:
        """The rows as the job tokenizes them, for the scripts; supervised tokens a row."""
        resolved = Settings(**settings)
        options = PrepareOptions.from_settings(resolved)
        files = fetch([str(self.rows())], self.folder / "fetched")
        folder = self.folder / f"prepared-{shape}"
        data = prepare(files, ChatFormat.load(self.model(shape)), options, folder)
        samples = [
            {"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()}
            for sample in data.train
        ]
        path = self.folder / f"tokens-{shape}.json"
        path.write_text(json.dumps(samples))
        supervised = sum(label != -100 for sample in samples for label in sample["labels"])
        return path, supervised / len(samples)


def run_side(module: str, plan: dict[str, Any], log: Path) -> dict[str, Any]:
    """The record that the side has left, with the time to its first step; or why there is none."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = log.with_suffix(".plan.json")
    path.write_text(json.dumps(plan))
    Path(plan["record"]).unlink(missing_ok=True)
    began = time.perf_counter()  # the system's monotonic clock, the same in every process
    with log.open("w") as output:
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, str(path)],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                timeout=SIDE_SECONDS,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = None
    measured = Path(plan["record"]).is_file()  # though what follows the last step took too long
    if done is None and not measured:
        return {"failed": f"not done after {SIDE_SECONDS} s", "log": log.read_text()[-2000:]}
    if done is not None and done.returncode:
        return {"failed": f"exit code {done.returncode}", "log": log.read_text()[-2000:]}
    record: dict[str, Any] = json.loads(Path(plan["record"]).read_text())
    record.pop("spans", None)
    return record | {"first_step_seconds": record["steps"][0][1] - began}


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    return asdict(Settings(**settings).hyperparameters())


def _brief(found: Mapping[str, Any]) -> str:
    return str(found.get("failed") or {k: v for k, v in found.items() if k not in ("steps", "log")})
