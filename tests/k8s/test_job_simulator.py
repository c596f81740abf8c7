"""The rendered Job, run as a cluster would run it, with preemptions thrown in."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from job.ledger import read_record
from job.storage import open_storage
from tests.k8s.chart import Manifest, all_of, env_of, only, pod_of, render
from tests.k8s.simulator import Disturbance, Progress, run_job, run_to_the_end

Release = Callable[..., list[Manifest]]


def _step(at_least: int) -> Callable[[Progress], bool]:
    return lambda progress: progress.get("step", 0) >= at_least


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_is_complete_after_three_preemptions(release: Release, tmp_path: Path) -> None:
    job = only(release(), "Job")
    evictions = [Disturbance(_step(step)) for step in (3, 12)]
    deleted = Disturbance(_step(25), disrupted=False)  # `kubectl delete pod`: no condition
    done = run_job(job, tmp_path, [*evictions, deleted])
    assert done.condition == "Complete", done.pods[-1].log
    assert [pod.exit_code for pod in done.pods] == [75, 75, 75, 0]
    assert done.actions[:3] == ["Ignore"] * 3, "none of them counts"
    env = env_of(pod_of(job)["containers"][0])
    found = read_record(open_storage(f"{env['FORGE_OUTPUT_URI']}/{env['FORGE_RUN_ID']}"))
    assert found is not None
    assert found[0].status == "succeeded"
    assert [attempt.exit_code for attempt in found[0].attempts] == [75] * 3 + [0]


def test_a_bad_setting_fails_the_job_at_once(release: Release, tmp_path: Path) -> None:
    """A misspelled variable, which `extraEnv` would let through."""
    job = only(release(), "Job")
    container = pod_of(job)["containers"][0]
    container["env"].append({"name": "FORGE_MAX_STEP", "value": "3"})
    done = run_job(job, tmp_path, [])
    assert (done.condition, done.actions) == ("Failed", ["FailJob"])
    assert done.pods[0].exit_code == 78
    assert "did you mean FORGE_MAX_STEPS?" in done.pods[0].log
    assert (tmp_path / "termination-log").read_text().startswith("exit 78: ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_pod_counts_and_the_next_one_goes_on(release: Release, tmp_path: Path) -> None:
    """137 without a condition: out of memory, a node that died."""
    job = only(release(maxSteps=12), "Job")
    done = run_job(job, tmp_path, [Disturbance(_step(9), signal.SIGKILL, False)])
    assert done.condition == "Complete", done.pods[-1].log
    assert [pod.exit_code for pod in done.pods] == [137, 0]
    assert done.actions[0] == "Count"


def test_pods_that_keep_failing_fail_the_job(release: Release, tmp_path: Path) -> None:
    job = only(release(storagePatienceSeconds=0), "Job")
    job["spec"]["backoffLimit"] = 1
    pod_of(job)["containers"][0]["env"].append(
        {"name": "AWS_ENDPOINT_URL_S3", "value": "http://127.0.0.1:1"}
    )
    done = run_job(job, tmp_path, [])
    assert (done.condition, done.actions) == ("Failed", ["Count", "Count"])
    assert {pod.exit_code for pod in done.pods} == {69}


def _hook(release: Release, values: Path) -> Manifest:
    release()
    manifests = render(values, options=("--set=validation.preInstall=true",))
    [hook] = [m for m in all_of(manifests, "Job") if m["metadata"]["name"].endswith("-validate")]
    return hook


def test_the_hook_is_tried_again_while_the_store_is_away(release: Release, tmp_path: Path) -> None:
    hook = _hook(release, tmp_path / "values.yaml")
    hook["spec"]["backoffLimit"] = 1
    pod_of(hook)["containers"][0]["env"].append(
        {"name": "AWS_ENDPOINT_URL_S3", "value": "http://127.0.0.1:1"}
    )
    done = run_job(hook, tmp_path, [])
    assert (done.condition, done.actions) == ("Failed", ["Count", "Count"])
    assert {pod.exit_code for pod in done.pods} == {69}


def test_the_hook_fails_a_release_with_bad_rows_at_once(
    release: Release, bucket: str, tmp_path: Path
) -> None:
    hook = _hook(release, tmp_path / "values.yaml")
    open_storage(bucket).write("data/rows.jsonl", b'{"messages": []}\n')
    done = run_job(hook, tmp_path, [])
    assert (done.condition, done.actions) == ("Failed", ["FailJob"])
    assert done.pods[0].exit_code == 65


def test_the_releases_own_test_passes_and_finds_bad_rows(release: Release, bucket: str) -> None:
    """The containers of `helm test`, run for real."""
    pod = only(release(), "Pod")["spec"]
    containers = [*pod["initContainers"], *pod["containers"]]
    ended = run_to_the_end(containers)
    assert [code for code, _ in ended] == [0, 0], ended
    assert "s3        ok" in ended[0][1]
    assert "rows " in ended[1][1]
    open_storage(bucket).write("data/rows.jsonl", b'{"messages": []}\n')
    assert [code for code, _ in run_to_the_end(containers)] == [0, 65]
