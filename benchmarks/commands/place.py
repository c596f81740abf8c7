"""Where the commands run: a store with rows and records of finished runs, and their settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.models import job_env, model_and_rows
from benchmarks.report import finished
from job.demo.s3_server import S3Server
from job.ledger import RECORD_KEY
from job.storage import open_storage

BUCKET: Final = "commands"


@dataclass(frozen=True)
class Place:
    env: dict[str, str]
    model: Path
    root: Path
    """Of the repository: where the commands are started."""
    rounds: int


@contextmanager
def place(model_name: str, runs: int, rounds: int, root: Path) -> Iterator[Place]:
    with TemporaryDirectory(prefix="commands-") as temporary, S3Server() as server:
        folder = Path(temporary)
        os.environ.update(server.env)
        server.create_bucket(BUCKET)
        rows = folder / "rows.jsonl"
        model = model_and_rows(model_name, folder, rows)
        open_storage(f"s3://{BUCKET}").upload("data/rows.jsonl", rows)
        records = open_storage(f"s3://{BUCKET}/runs")
        for number in range(runs):
            record = finished(1000).model_copy(update={"run_id": f"run-{number:03d}"})
            records.write(f"{record.run_id}/{RECORD_KEY}", record.model_dump_json().encode())
        yield Place(job_env(BUCKET, "checked", model, folder), model, root, rounds)
