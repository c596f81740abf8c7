"""scripts/wait_for_job.sh with the real `kubectl`, and a server that answers as a cluster would."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.apiserver import Cluster, environment, event_of, job_of, pod_of, serving
from tests.k8s.chart import ROOT

SCRIPT = ROOT / "scripts" / "wait_for_job.sh"
JOB = "run-1"


def _wait(cluster: Cluster, folder: Path, seconds: int = 20) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), "ml", JOB, str(seconds)]
    with serving(cluster):
        env = environment(cluster, folder) | {"WAIT_SECONDS": "0.1"}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=seconds + 60
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


def test_it_ends_with_kubectls_own_error_where_that_stays(tmp_path: Path) -> None:
    """Credentials expire: to ask on until the end and call the Job unfinished would be a guess."""
    cluster = Cluster(job_of(JOB, "Complete"), deny=[True] * 1000)
    ended = _wait(cluster, tmp_path, seconds=60)
    assert ended.returncode == 1
    assert "Unauthorized" in ended.stderr
    assert "the Job may go on" in ended.stderr
    assert "has not ended" not in ended.stderr
    assert len(cluster.asked) == 20, "for five minutes"


def test_it_does_not_guess_at_the_end_of_its_time(tmp_path: Path) -> None:
    ended = _wait(Cluster(job_of(JOB, "Complete"), deny=[True] * 1000), tmp_path, seconds=1)
    assert ended.returncode == 1
    assert "has not ended" not in ended.stderr


def test_a_few_failed_calls_are_lived_through(tmp_path: Path) -> None:
    cluster = Cluster(job_of(JOB, "Complete"), [pod_of(JOB, 0, {"job": 0})], deny=[True] * 3)
    ended = _wait(cluster, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "complete: exit 0: what job said\n")


NO_ACCOUNT = (
    'Error creating: pods "run-1-" is forbidden: error looking up service account ml/forge-job: '
    'serviceaccount "forge-job" not found'
)


def _podless(*messages: str, job: str = JOB) -> Cluster:
    said = [event_of(job, minute, message) for minute, message in enumerate(messages)]
    return Cluster(job_of(JOB), events=said[::-1])


def test_it_does_not_wait_for_a_pod_that_is_refused(tmp_path: Path) -> None:
    """Nobody has made the service account: the Job has no condition, and never a pod."""
    cluster = _podless("Error creating: something else, an hour ago", NO_ACCOUNT)
    ended = _wait(cluster, tmp_path, seconds=300)
    assert ended.returncode == 1
    assert NO_ACCOUNT in ended.stderr, "the newest of them"
    assert "an hour ago" not in ended.stderr
    assert sum("/events" in target for target in cluster.asked) == 20, "for five minutes"


@pytest.mark.parametrize(
    "cluster",
    [
        _podless('Error creating: pods "run-1-" is forbidden: exceeded quota: gpus'),
        _podless(NO_ACCOUNT, job="another"),
        Cluster(job_of(JOB, active=1), events=[event_of(JOB, 0, NO_ACCOUNT)]),
        Cluster(job_of(JOB), events=[event_of(JOB, 0, NO_ACCOUNT)], hidden=True),
    ],
    ids=["a quota gets free", "another Job's", "made since", "events are not to be read"],
)
def test_it_waits_where_a_pod_may_come(tmp_path: Path, cluster: Cluster) -> None:
    cluster.ends_after = 25
    cluster.pods.append(pod_of(JOB, 0, {"job": 0}))
    ended = _wait(cluster, tmp_path, seconds=300)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_identity_of_a_workflow_lasts_as_long_as_its_wait() -> None:
    """A session of OIDC ends after an hour, and kubectl's token is made of it."""
    workflow = yaml.safe_load((ROOT / "k8s" / "ci" / "github-actions.yml").read_text())
    job = workflow["jobs"]["train"]
    [signing_in] = [s for s in job["steps"] if "configure-aws-credentials" in s.get("uses", "")]
    [waiting] = [s for s in job["steps"] if "wait_for_job.sh" in s.get("run", "")]
    seconds = signing_in["with"]["role-duration-seconds"]
    assert int(waiting["run"].split()[-1]) < job["timeout-minutes"] * 60 < seconds <= 12 * 3600
