"""What `FORGE_REPORT_TO` needs around training: folders, stable run ids, event files in storage."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job.storage import Storage

_log = logging.getLogger(__name__)

EVENTS = "tensorboard"
"""Folder of the event files, on the work volume and in the run."""


@contextmanager
def environment(run_uri: str, folder: Path) -> Iterator[None]:
    """What transformers' integrations read from the environment, while inside `with`.

    Event files go to `folder`. W&B takes each attempt for the same run. A server that is down is
    given up within a minute. What the user has set stays as it is, but for the events' folder.
    """
    wanted = {
        "WANDB_RUN_ID": hashlib.sha256(run_uri.encode()).hexdigest()[:16],
        "WANDB_RESUME": "allow",
        "WANDB_INIT_TIMEOUT": "30",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    added["TENSORBOARD_LOGGING_DIR"] = str(folder)
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def upload_events(storage: Storage, folder: Path, attempt: int) -> None:
    """The event files so far, to `tensorboard/attempt-NNN/`: each attempt adds its own, so that
    nothing of another one is replaced. Never raises: curves are not worth a run."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"{EVENTS}/attempt-{attempt:03d}/{path.relative_to(folder).as_posix()}"
            try:
                storage.upload(key, path)
            except Exception as error:  # noqa: BLE001
                _log.warning("%s is not in storage: %s", key, error)
                return
