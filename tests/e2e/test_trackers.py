"""What real runs leave with the trackers, read back with the trackers' own code."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from job import trackers
from job.storage import Storage, open_storage
from tests.e2e.jobs import preempted, run, started
from tests.ports import own_port
from tests.tracking import MlflowServer, mlflow_server, wandb_records

STEPS = list(range(1, 31))
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "mlflow-password-of-the-test",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
}


def has(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install .[trackers]")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    has("mlflow", "sqlalchemy", "alembic")
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def told(server: MlflowServer, job_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of a run that was preempted and resumed, with all three trackers."""
    has("wandb")
    env = job_env | {
        "FORGE_REPORT_TO": "tensorboard,mlflow,wandb",
        "FORGE_MAX_STEPS": str(STEPS[-1]),
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_EXPERIMENT_NAME": "forge",
        "WANDB_MODE": "offline",
        **SECRETS,
    }
    preempted(env, tmp_path / "first.log", after_step=4)
    (found,) = mlflow_runs(server)
    assert found.info.status == "KILLED"
    ended = run(env, tmp_path / "second.log")
    assert ended.code == 0, ended.log
    return env


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_resumed_run_goes_on_in_every_tracker(
    told: dict[str, str], server: MlflowServer, tmp_path: Path
) -> None:
    storage = open_storage(f"{told['FORGE_OUTPUT_URI']}/run")
    from mlflow import MlflowClient

    (found,) = mlflow_runs(server)
    assert found.info.status == "FINISHED"
    assert found.data.tags["forge.run_uri"] == storage.uri
    assert found.data.params["learning_rate"] == "0.01"
    losses = MlflowClient(server.url).get_metric_history(found.info.run_id, "loss")
    assert sorted(point.step for point in losses) == STEPS
    by_step = {point.step: pytest.approx(point.value) for point in losses}

    offline = wandb_of(downloaded(storage, "wandb/", tmp_path))
    assert [attempt["id"] for attempt in offline] == [trackers.run_key(storage.uri)] * 2
    assert offline[0]["config"]["learning_rate"] == 0.01
    assert offline[0]["losses"] | offline[1]["losses"] == by_step
    assert set(offline[0]["losses"]).isdisjoint(offline[1]["losses"])
    assert [attempt["exit"] for attempt in offline] == [75, 0]

    events = [
        EventAccumulator(str(path)).Reload().Scalars("train/loss")
        for path in downloaded(storage, "tensorboard/", tmp_path)
    ]
    assert [next(e.step for e in attempt) for attempt in events] == [1, min(offline[1]["losses"])]
    assert {e.step: e.value for attempt in events for e in attempt} == by_step

    logs = (tmp_path / "first.log").read_bytes() + (tmp_path / "second.log").read_bytes()
    assert all(line.startswith(b"{") for line in logs.splitlines()), "they log beside the job"
    everything = logs + b"".join(storage.read(info.key)[0] for info in storage.list(""))
    assert not [name for name, value in SECRETS.items() if value.encode() in everything]


def mlflow_runs(server: MlflowServer) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("forge")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def downloaded(storage: Storage, prefix: str, folder: Path) -> list[Path]:
    paths = []
    for info in storage.list(prefix):
        path = folder / "downloaded" / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.download(info.key, path)
        paths.append(path)
    return paths


def wandb_of(paths: list[Path]) -> list[dict[str, Any]]:
    """Of each attempt: the run's id, its configuration, its losses by step, and its exit code."""
    told = []
    for path in [path for path in paths if path.suffix == ".wandb"]:
        attempt: dict[str, Any] = {"config": {}, "losses": {}}
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                attempt["id"] = record.run.run_id
            elif kind == "config":
                items = {each.key: each.value_json for each in record.config.update if each.key}
                attempt["config"] |= {key: json.loads(value) for key, value in items.items()}
            elif kind == "history":
                row = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
                if "train/loss" in row:
                    step = int(row["train/global_step"])
                    attempt["losses"][step] = json.loads(row["train/loss"])
            elif kind == "exit":
                attempt["exit"] = record.exit.exit_code
        told.append(attempt)
    return told


def _attempts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "work").glob("run-*/attempt-001-*"))


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
def test_trackers_that_fail_end_no_run(job_env: dict[str, str], tmp_path: Path) -> None:
    """TensorBoard's folder can't be made: a file lies where it would be. MLflow's server
    takes connections and never answers, W&B's is not there."""
    has("mlflow", "wandb")
    with socket.create_server(("127.0.0.1", 0)) as silent, own_port() as closed:
        env = job_env | {
            "FORGE_REPORT_TO": "tensorboard,mlflow,wandb",
            "FORGE_MAX_STEPS": "2",
            "MLFLOW_TRACKING_URI": f"http://me:{SECRETS['MLFLOW_TRACKING_PASSWORD']}@127.0.0.1:"
            f"{silent.getsockname()[1]}",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "WANDB_BASE_URL": f"http://127.0.0.1:{closed}",
            "WANDB_INIT_TIMEOUT": "3",
            **SECRETS,
        }
        with started(env, tmp_path / "log") as job:
            job.wait_until(lambda _: bool(_attempts(tmp_path)))  # it tokenizes
            (_attempts(tmp_path)[0] / "tensorboard").touch()
            ended = job.ended()
    assert ended.code == 0, ended.log
    warnings = [e["message"] for e in ended.events() if "left out from now on" in e["message"]]
    assert [message.split()[0] for message in warnings] == ["TensorBoard", "MLflow", "Wandb"]
    assert not [name for name, value in SECRETS.items() if value in ended.log]


def test_the_end_waits_for_no_server_that_hangs(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    mlflow.start_run()
    server.freeze()
    mlflow.log_metric("loss", 1.0, step=1, synchronous=False)
    with caplog.at_level(logging.WARNING):
        trackers.end(0, 0.5)
    server.thaw()
    mlflow.end_run()  # else MLflow does, when the tests are over, in a database beside the code
    assert "MLflow lacks the end of this attempt: no answer within" in caplog.text
