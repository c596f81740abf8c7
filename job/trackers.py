"""What `FORGE_REPORT_TO` needs around training: settings, the run it goes on in, its end, files.

transformers' integrations leave much of it to how an ordinary process ends. The job's ends at once
(`os._exit`) and comes back as another attempt, so it says itself in which run of a tracker it goes
on, and how it ended. No tracker is worth a run: nothing here raises.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from job.errors import Fenced, GateFailed, Preempted
from job.storage import Storage

_log = logging.getLogger(__name__)

EVENTS: Final = "tensorboard"
"""Folder of the event files, on the work volume and in the run."""
_FILES: Final = (
    (EVENTS, "**/*"),
    # What `wandb sync` reads of runs that no server has seen; logs lie beside them.
    ("wandb", "offline-run-*/*.wandb"),
    ("wandb", "offline-run-*/files/**/*"),
)
"""(folder, files in it that go to the run's folder of the same name)"""
_TAG: Final = "forge.run"
"""On the MLflow run, by which the next attempt finds it."""
_QUIET: Final = {
    # Their own lines would stand between ours, unmasked; the console's copy would leave the pod.
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # Nothing goes to anyone but the server that was asked for.
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_LIMITS: Final = {
    "WANDB_INIT_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_DONE: Final = (0, GateFailed.exit_code)


def run_key(run_uri: str) -> str:
    """What all attempts of a run are known by to a tracker: 16 hexadecimal digits."""
    return hashlib.sha256(run_uri.encode()).hexdigest()[:16]


@contextmanager
def environment(run_uri: str, own_dir: Path) -> Iterator[None]:
    """What the integrations read from the environment, while inside `with`.

    Files go below `own_dir`. W&B takes each attempt for the same run. A server that is down is
    given up within a minute. What the user has set stays as it is, but for the folders.
    """
    resumed = {"WANDB_RUN_ID": run_key(run_uri), "WANDB_RESUME": "allow"}
    wanted = resumed | _LIMITS | _QUIET
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    added["TENSORBOARD_LOGGING_DIR"] = str(own_dir / EVENTS)
    added["WANDB_DIR"] = str(own_dir)
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


@contextmanager
def mlflow_run(run_uri: str) -> Iterator[None]:
    """While inside, a run that MLflow starts is the one of earlier attempts, if there is one.

    Parameters are the first attempt's: MLflow refuses to change them, and folders differ. Raises
    what MLflow raises.
    """
    import mlflow

    if (run := _earlier_run(mlflow, run_key(run_uri))) is not None:
        os.environ["MLFLOW_RUN_ID"] = run.info.run_id
        if run.data.params:
            os.environ["MLFLOW_MAX_LOG_PARAMS"] = "0"
    yield
    mlflow.set_tags({_TAG: run_key(run_uri), f"{_TAG}_uri": run_uri})


def _earlier_run(mlflow: Any, key: str) -> Any:
    """The one that the user names, or the one with our tag in the experiment that is in use."""
    if given := os.environ.get("MLFLOW_RUN_ID"):
        return mlflow.get_run(given)
    if name := os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        mlflow.set_experiment(name)  # made if there is none
    found = mlflow.search_runs(
        filter_string=f"tags.`{_TAG}` = '{key}'",
        max_results=1,
        output_format="list",
    )
    return found[0] if found else None


def end(exit_code: int, seconds: float) -> None:
    """Send what MLflow and W&B still hold, and tell them how the attempt ended, for about `seconds`
    each at most. One that was replaced by a newer attempt (76) ends nothing: the run is that
    one's."""
    mlflow, wandb = sys.modules.get("mlflow"), sys.modules.get("wandb")
    if mlflow is not None and mlflow.active_run() is not None:
        _end_mlflow(mlflow, exit_code, seconds)
    if wandb is not None and wandb.run is not None and exit_code != Fenced.exit_code:
        _within(seconds, "W&B", lambda: _end_wandb(wandb, exit_code))


def _end_mlflow(mlflow: Any, exit_code: int, seconds: float) -> None:
    """Its stack of runs is each thread's own, so the end itself is told on this one."""
    flushed = _within(seconds, "MLflow", mlflow.flush_async_logging)
    if not flushed or exit_code == Fenced.exit_code:
        return
    stopped = "KILLED" if exit_code == Preempted.exit_code else "FAILED"
    try:
        mlflow.end_run("FINISHED" if exit_code in _DONE else stopped)
    except Exception as error:  # noqa: BLE001
        _log.warning("MLflow was not told how the run ended: %s", error)


def _end_wandb(wandb: Any, exit_code: int) -> None:
    if exit_code == Preempted.exit_code:
        wandb.run.mark_preempting()
    wandb.finish(exit_code=0 if exit_code in _DONE else exit_code)


def _within(seconds: float, name: str, do: Callable[[], None]) -> bool:
    """Whether `do` came back: in a thread that holds nothing up where a server doesn't answer."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            do()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended as it has
            failed.append(error)

    thread = threading.Thread(target=run, name=f"end-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() or failed:
        why = failed[0] if failed else f"no answer within {seconds:.0f} s"
        _log.warning("%s lacks the end of this attempt: %s", name, why)
        return False
    return True


def upload_files(storage: Storage, own_dir: Path, attempt: int) -> None:
    """The trackers' files so far, to `<tracker>/attempt-NNN/`: each attempt adds its own, so that
    nothing of another one is replaced. Never raises: curves are not worth a run."""
    for folder, pattern in _FILES:
        for path in sorted((own_dir / folder).glob(pattern)):
            if path.is_file():
                name = path.relative_to(own_dir / folder).as_posix()
                key = f"{folder}/attempt-{attempt:03d}/{name}"
                try:
                    storage.upload(key, path)
                except Exception as error:  # noqa: BLE001
                    _log.warning("%s is not in storage: %s", key, error)
                    return
