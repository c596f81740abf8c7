"""Two nodes with a network of their own: one is killed, one is cut off, and the run goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.storage import open_storage
from tests.distributed.network import Nodes, two_nodes
from tests.distributed.workers import durable_step, record_of
from tests.e2e.jobs import Ended, JobProcess, run

JOB = (sys.executable, "-m", "job")


@pytest.fixture
def nodes(s3_server: S3Server) -> Iterator[Nodes]:
    with two_nodes(s3_server.endpoint_url) as made:
        yield made


@pytest.fixture
def env(two_env: dict[str, str]) -> dict[str, str]:
    return two_env | {
        "FORGE_MAX_STEPS": "60",
        "FORGE_RANK_TIMEOUT_SECONDS": "6",
        "FORGE_HEARTBEAT_SECONDS": "1",
        "AWS_MAX_ATTEMPTS": "2",  # whoever is cut off gives each last request up sooner
    }


class Pods:
    """Both processes of an attempt, each on its node with a work volume of its own."""

    def __init__(self, nodes: Nodes, env: Mapping[str, str], folder: Path, attempt: int) -> None:
        self.both = [
            JobProcess(
                {**env, **nodes.env(number), "FORGE_WORK_DIR": str(folder / f"node-{number}")},
                folder / f"attempt-{attempt}-{number}.log",
                command=nodes.on(number, JOB),
            )
            for number in range(2)
        ]

    def wait_until_durable(self, step: int) -> None:
        self.both[0].wait_until(lambda _: durable_step(self.both[0].log()) >= step)

    def ended(self) -> list[Ended]:
        return [pod.ended() for pod in self.both]

    def kill(self) -> None:
        for pod in self.both:
            pod.kill()


@pytest.mark.timeout(600)
def test_a_node_that_is_lost_ends_the_attempt_and_not_the_run(
    nodes: Nodes, env: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as stack:

        def attempt(number: int) -> Pods:
            pods = Pods(nodes, env, tmp_path, number)
            stack.callback(pods.kill)
            return pods

        _killed(attempt(1), env)
        _cut_off(attempt(2), env, nodes)
        ended = attempt(3).ended()
        assert [pod.code for pod in ended] == [0, 0], ended[0].log + ended[1].log
    record = record_of(env)
    assert record.status == "succeeded"
    assert record.current.from_step >= 15

    whole = {**env, "FORGE_RUN_ID": "whole", "PET_NPROC_PER_NODE": "2"}
    alone = run(whole, tmp_path / "whole.log")
    assert alone.code == 0, alone.log
    assert _adapter(env) == _adapter(whole)


def _killed(pods: Pods, env: Mapping[str, str]) -> None:
    """The second node, with all that runs there."""
    pods.wait_until_durable(5)
    pods.both[1].kill()  # its worker dies with it
    ended = pods.both[0].ended()
    assert ended.code == 70, ended.log
    assert record_of(env).status == "failed"


def _cut_off(pods: Pods, env: Mapping[str, str], nodes: Nodes) -> None:
    """The first node, whose process owns the run: it reaches neither the other nor the store."""
    pods.wait_until_durable(15)
    nodes.cut_off(0)
    ended = pods.ended()
    nodes.connect(0)
    assert [pod.code for pod in ended] == [70, 70], ended[0].log + ended[1].log
    assert record_of(env).durable_step >= 15


def _adapter(env: Mapping[str, str]) -> bytes:
    """The weights that are published."""
    storage = open_storage(f"{env['FORGE_OUTPUT_URI']}/{env['FORGE_RUN_ID']}")
    return storage.read("adapter/adapter_model.safetensors")[0]
