"""Two nodes with a network of their own: one is killed, one is cut off, and the run goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from job.demo.s3_server import S3Server
from job.ranks.node import wanted
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

    def __init__(self, both: list[JobProcess]) -> None:
        self.both = both

    @classmethod
    def launched(cls, nodes: Nodes, env: Mapping[str, str], folder: Path) -> Pods:
        """As in a cluster."""
        both = []
        for number in (0, 1):
            own, log = _of_node(nodes, env, folder, number), folder / f"launched-{number}.log"
            both.append(JobProcess(own, log, command=nodes.on(number, JOB)))
        return cls(both)

    @classmethod
    def forked(cls, nodes: Nodes, env: Mapping[str, str], folder: Path, attempt: int) -> Pods:
        """What the launchers would start, without the launchers and the imports."""
        both = []
        for number in (0, 1):
            own = _of_node(nodes, env, folder, number)
            node = wanted(own)
            assert node is not None
            log = folder / f"attempt-{attempt}-{number}.log"
            netns = nodes.namespace(number)
            both.append(JobProcess(own | node.environment(0), log, netns=netns))
        return cls(both)

    def wait_until_durable(self, step: int) -> None:
        self.both[0].wait_until(lambda _: durable_step(self.both[0].log()) >= step)

    def ended(self) -> list[Ended]:
        return [pod.ended() for pod in self.both]

    def kill(self) -> None:
        for pod in self.both:
            pod.kill()


def _of_node(nodes: Nodes, env: Mapping[str, str], folder: Path, number: int) -> dict[str, str]:
    return {**env, **nodes.env(number), "FORGE_WORK_DIR": str(folder / f"node-{number}")}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("forked_jobs")
def test_a_node_that_is_lost_ends_the_attempt_and_not_the_run(
    nodes: Nodes, env: dict[str, str], tmp_path: Path
) -> None:
    with ExitStack() as stack:

        def known(pods: Pods) -> Pods:
            stack.callback(pods.kill)
            return pods

        _killed(known(Pods.forked(nodes, env, tmp_path, 1)), env)
        _cut_off(known(Pods.forked(nodes, env, tmp_path, 2)), env, nodes)
        ended = known(Pods.launched(nodes, env, tmp_path)).ended()
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
    pods.both[1].kill()
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
