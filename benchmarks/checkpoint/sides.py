"""Four ways to have a checkpoint in storage, with one interface: what they do when it is written.

`rival` is a stand-in, written from the description of kubeflow-sdk's asynchronous uploads (a stack,
four worker threads of ordinary priority, a marker while incomplete), not their code.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from queue import LifoQueue
from typing import Protocol

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager

from job.checkpoint import CheckpointUploader, Local
from job.ledger import Ledger
from job.lifecycle import StopToken
from job.storage import open_storage

NAMES = ("bare", "naive", "rival", "ours")


class Side(Protocol):
    def saved(self, folder: Path, step: int) -> None:
        """Called on the training thread once the folder is written; takes it over."""
        ...

    def idle(self) -> bool:
        """Whether all of it is in storage, and the processors are free again."""
        ...


class Bare:
    """The local write alone."""

    def saved(self, folder: Path, step: int) -> None:
        shutil.rmtree(folder)

    def idle(self) -> bool:
        return True


class Naive:
    """What `on_save` does in most people's scripts."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._client = boto3.session.Session().client("s3")

    def saved(self, folder: Path, step: int) -> None:
        for path in sorted(folder.iterdir()):
            self._client.upload_file(str(path), self._bucket, f"naive/{step}/{path.name}")
        shutil.rmtree(folder)

    def idle(self) -> bool:
        return True


class Rival:
    """Asynchronous, in the process, at ordinary priority."""

    def __init__(self, bucket: str, workers: int = 4) -> None:
        self._bucket = bucket
        self._client = boto3.session.Session().client("s3")
        self._queue: LifoQueue[tuple[Path, int]] = LifoQueue()
        self._left: dict[int, int] = {}
        self._lock = threading.Lock()
        for _ in range(workers):
            threading.Thread(target=self._work, daemon=True).start()

    def saved(self, folder: Path, step: int) -> None:
        paths = sorted(folder.iterdir())
        with self._lock:
            self._left[step] = len(paths)
        self._client.put_object(Bucket=self._bucket, Key=f"rival/{step}/incomplete", Body=b"")
        for path in paths:
            self._queue.put((path, step))

    def idle(self) -> bool:
        return not self._left

    def _work(self) -> None:
        while True:
            path, step = self._queue.get()
            self._client.upload_file(str(path), self._bucket, f"rival/{step}/{path.name}")
            with self._lock:
                self._left[step] -= 1
                done = not self._left[step]
            if done:
                self._client.delete_object(Bucket=self._bucket, Key=f"rival/{step}/incomplete")
                shutil.rmtree(path.parent)
                with self._lock:
                    del self._left[step]


class Ours:
    """The job's own uploader, over a record of its own."""

    def __init__(self, bucket: str) -> None:
        root = f"s3://{bucket}/ours"
        ledger = Ledger.claim(open_storage(root), "bench", version="1", conditional_writes=True)
        self._uploader = CheckpointUploader(
            open_storage(root), ledger, StopToken(), keep=1, patience_seconds=60
        )
        self._uploader.__enter__()

    def saved(self, folder: Path, step: int) -> None:
        self._uploader.submit(Local(folder, step))

    def idle(self) -> bool:
        return self._uploader.settle(0)


def sides(bucket: str) -> dict[str, Side]:
    return {"bare": Bare(), "naive": Naive(bucket), "rival": Rival(bucket), "ours": Ours(bucket)}


def boto3_upload(bucket: str, folder: Path, prefix: str) -> None:
    """A folder through boto3's transfer manager with its own settings: a plain user's best."""
    client = boto3.session.Session().client("s3")
    with create_transfer_manager(client, TransferConfig(max_concurrency=10)) as manager:
        futures = [
            manager.upload(str(path), bucket, f"{prefix}/{path.name}") for path in folder.iterdir()
        ]
        for future in futures:
            future.result()
