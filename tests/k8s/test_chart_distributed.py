"""Several pods for one run: what an operator checks, or finds by its name, beside any schema."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from job.config import Settings
from job.ranks.node import Node, wanted
from tests.k8s.chart import (
    CHART,
    ROOT,
    VALUES,
    Manifest,
    env_of,
    example,
    jobs_of,
    only,
    pod_of,
    run,
)
from tests.k8s.custom import check

RULE_NAME = re.compile(r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
"""Of a JobSet's failure policy, as its API documents it."""


@pytest.fixture(params=["jobset", "trainjob"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _rendered(kind: str) -> tuple[list[Manifest], Manifest, Manifest]:
    """All, the one Job, and the JobSet's own spec."""
    manifests = example(kind)
    [job] = jobs_of(manifests)
    if kind == "jobset":
        return manifests, job, only(manifests, "JobSet")["spec"]
    return manifests, job, only(manifests, "TrainingRuntime")["spec"]["template"]["spec"]


def test_the_jobset_gives_up_where_its_job_does(kind: str) -> None:
    _, job, spec = _rendered(kind)
    [rule] = spec["failurePolicy"]["rules"]
    assert RULE_NAME.match(rule["name"])
    assert rule["action"] == "FailJobSet"
    assert "PodFailurePolicy" in rule["onJobFailureReasons"]
    assert spec["failurePolicy"]["maxRestarts"] == 0, "pods are replaced by the Job, not all of it"
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["podFailurePolicy"]["rules"]
    [counted] = jobs_of(example("several-gpus"))
    assert job["spec"]["backoffLimit"] == 2 * counted["spec"]["backoffLimit"]


def test_the_pods_of_a_jobset_find_each_other() -> None:
    """By the variables that the launcher reads, and the name that JobSet gives the first pod."""
    manifests, job, spec = _rendered("jobset")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    container = pod_of(job)["containers"][0]
    [index] = [v for v in container["env"] if v["name"] == "PET_NODE_RANK"]
    path = index["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    name = only(manifests, "JobSet")["metadata"]["name"]
    assert spec["network"]["publishNotReadyAddresses"] is True
    found = wanted(env_of(container) | {"PET_NODE_RANK": "1"})
    assert found == Node(2, 4, 1, f"{name}-node-0-0.{name}", 29500)
    [other] = jobs_of(example("jobset", "distributed.port=2345"))
    assert env_of(pod_of(other)["containers"][0])["PET_MASTER_PORT"] == "2345"


def test_kubeflow_finds_what_it_fills_in() -> None:
    manifests, job, spec = _rendered("trainjob")
    [replicated] = spec["replicatedJobs"]
    labels = replicated["template"]["metadata"]["labels"]
    assert replicated["name"] == "node"
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    [container] = pod_of(job)["containers"]
    assert container["name"] == "node"
    assert not [v["name"] for v in container["env"] if v["name"].startswith("PET_")], "it sets them"
    train_job, runtime = only(manifests, "TrainJob"), only(manifests, "TrainingRuntime")
    assert train_job["spec"]["trainer"] == {"numNodes": 2, "numProcPerNode": 4}
    assert train_job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    # Helm sends unknown kinds in alphabetical order, and the webhook wants the runtime first.
    assert runtime["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def _names(*sets: str) -> tuple[str, str]:
    """A TrainJob's, and that of the runtime that it is tied to."""
    manifests = example("trainjob", 'runId="mine"', *sets)
    train_job, runtime = only(manifests, "TrainJob"), only(manifests, "TrainingRuntime")
    assert train_job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    return train_job["metadata"]["name"], runtime["metadata"]["name"]


@pytest.mark.parametrize(
    "other",
    [
        'image.tag="2"',
        "settings.loraR=32",
        'resources.limits={"memory":"64Gi"}',
        "distributed.nodes=3",
        "job.ttlSecondsAfterFinished=60",
    ],
)
def test_a_run_that_is_named_never_goes_on_with_an_old_runtime(other: str) -> None:
    """A runtime that is there is left alone, and it holds all that a pod is made of."""
    train_job, runtime = _names()
    assert (train_job, runtime) == _names()
    assert runtime.startswith(f"{train_job}-")
    again, another = _names(other)
    assert again == train_job
    assert another != runtime


def test_a_runtimes_name_fits_where_the_longest_run_does() -> None:
    """One character more and the chart refuses the run: `-node-0-1-abcde` is the pods'."""
    longest = "m" * (63 - len("-node-0-1-abcde") - len("weather-"))
    _, runtime = _names(f'runId="{longest}"')
    assert len(runtime) <= 63
    refused = run("helm", "template", "weather", str(CHART), f"--values={VALUES / 'trainjob.yaml'}",
                  f"--set=runId={longest}m")  # fmt: skip
    assert "can't name 2 pods" in refused.stderr


def test_a_name_that_yaml_takes_for_no_stays_a_name(kind: str) -> None:
    """What is made of the Job's spec is read as YAML once more on the way."""
    manifests = example(kind, 'runId="no"', 'kueue.queueName="on"', release="no", namespace="off")
    [job] = jobs_of(manifests)
    assert job["spec"]["template"]["metadata"]["labels"]["forge-job/run-id"] == "no"
    for manifest in manifests:
        metadata = manifest["metadata"]
        assert (metadata["namespace"], metadata["labels"]["app.kubernetes.io/instance"]) == (
            "off",
            "no",
        )
    owner = only(manifests, {"jobset": "JobSet", "trainjob": "TrainJob"}[kind])["metadata"]
    assert (owner["name"], owner["labels"]["kueue.x-k8s.io/queue-name"]) == ("no", "on")


def _startup_seconds(*sets: str, values: str = "jobset") -> float:
    [job] = jobs_of(example(values, *sets))
    [container] = pod_of(job)["containers"]
    probe = container["startupProbe"]
    assert probe["httpGet"] == container["livenessProbe"]["httpGet"]
    return float(probe["periodSeconds"] * probe["failureThreshold"])


@pytest.mark.parametrize("values", ["jobset", "trainjob", "several-gpus"])
def test_no_probe_ends_a_pod_that_waits_for_the_others(values: str) -> None:
    """Nothing listens before they have met, so that a liveness probe would kill whoever came
    first; it begins when the startup probe has succeeded."""
    join = Settings.model_fields["rank_join_seconds"].default
    assert _startup_seconds(values=values) >= join + 120
    assert _startup_seconds("settings.rankJoinSeconds=3600.5", values=values) >= 3720.5
    assert _startup_seconds('settings.rankJoinSeconds="60"', values=values) < join


def test_a_pod_that_waits_for_nobody_has_no_time_to_start() -> None:
    [job] = jobs_of(example("first-run"))
    assert "startupProbe" not in pod_of(job)["containers"][0]


def test_the_notes_name_what_there_is(kind: str) -> None:
    values = f"--values={VALUES / f'{kind}.yaml'}"
    shown = run("helm", "install", "weather", str(CHART), "-n=ml", values, "--dry-run=client")
    notes = shown.stdout.partition("NOTES:")[2]
    [job] = jobs_of(example(kind))
    name = env_of(pod_of(job)["containers"][0])["FORGE_RUN_ID"]
    assert f"kubectl -n ml logs -f --prefix -l forge-job/run-id={name}\n" in notes
    assert f"kubectl -n ml get {kind} {name} -o wide" in notes
    assert f"kubectl -n ml delete {kind} {name}" in notes


def test_the_number_of_pods_is_part_of_the_runs_id(kind: str) -> None:
    """Another number would be refused on resume."""

    def name(*sets: str) -> Any:
        [job] = jobs_of(example(kind, *sets))
        return env_of(pod_of(job)["containers"][0])["FORGE_RUN_ID"]

    assert name() == name()
    assert name() != name("distributed.nodes=3")


@pytest.mark.parametrize(
    ("name", "kinds"), [("jobset", ["JobSet"]), ("trainjob", ["TrainingRuntime", "TrainJob"])]
)
def test_the_examples_are_known_and_in_order(name: str, kinds: list[str]) -> None:
    text = (ROOT / "k8s" / "distributed" / f"{name}.yaml").read_text()
    manifests = list(yaml.safe_load_all(text))
    assert [manifest["kind"] for manifest in manifests] == kinds
    for manifest in manifests:
        check(manifest)
        assert "helm.sh/hook" not in manifest["metadata"].get("annotations", {})
        # Whoever fills it in by hand changes what a hash would be of.
        assert manifest["metadata"]["name"] == "forge-job-distributed-1"
    if reference := manifests[-1]["spec"].get("runtimeRef"):
        assert reference["name"] == manifests[0]["metadata"]["name"]
