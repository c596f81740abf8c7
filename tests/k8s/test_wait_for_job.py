"""scripts/wait_for_job.sh with the real `kubectl`, and a server that answers as a cluster would."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.k8s.apiserver import Cluster, environment, job_of, pod_of, serving
from tests.k8s.chart import ROOT

SCRIPT = ROOT / "scripts" / "wait_for_job.sh"
JOB = "run-1"


def _wait(cluster: Cluster, folder: Path, seconds: int = 20) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), "ml", JOB, str(seconds)]
    with serving(cluster):
        env = environment(cluster, folder) | {"WAIT_SECONDS": "0.1"}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=60
        )


def _ended(condition: str, *pods: dict[str, int]) -> Cluster:
    made = [pod_of(JOB, minute, codes) for minute, codes in enumerate(pods)]
    return Cluster(job_of(JOB, condition), made[::-1])


def test_a_complete_job_is_a_success(tmp_path: Path) -> None:
    cluster = _ended("Complete", {"job": 75}, {"job": 0})
    ended = _wait(cluster, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "complete: exit 0: what job said\n")
    cluster.pods.append(pod_of("another", 59, {"job": 3}))
    assert _wait(cluster, tmp_path).stdout == ended.stdout, "of another Job's pods it knows nothing"


@pytest.mark.parametrize("code", [65, 80])
def test_a_failed_job_gives_the_code_of_its_last_pod(tmp_path: Path, code: int) -> None:
    ended = _wait(_ended("Failed", {"job": 75}, {"job": code}), tmp_path)
    assert ended.returncode == code
    assert f"exit {code}: what job said" in ended.stderr


@pytest.mark.parametrize("container", ["job", "node"])
def test_a_sidecar_is_not_taken_for_the_job(tmp_path: Path, container: str) -> None:
    """A mesh injects one, and the statuses are sorted by name. `node` is Kubeflow Trainer's."""
    ended = _wait(_ended("Failed", {"istio-proxy": 0, "agent": 0, container: 65}), tmp_path)
    assert ended.returncode == 65
    assert f"what {container} said" in ended.stderr


@pytest.mark.parametrize("pods", [[], [{"agent": 0}], [{"job": 0}]], ids=str)
def test_a_failed_job_is_never_a_success(tmp_path: Path, pods: list[dict[str, int]]) -> None:
    """One past its deadline may have no pod, or one that had just ended well."""
    assert _wait(_ended("Failed", *pods), tmp_path).returncode == 1


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    ended = _wait(Cluster(job_of(JOB, "Suspended")), tmp_path, seconds=1)
    assert ended.returncode == 124
    assert "has not ended" in ended.stderr
