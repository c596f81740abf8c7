"""k8s/: rendered from the chart, complete, and ready for the tools that people use."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from job.config import load_settings
from job.profiles import PROFILES
from tests.k8s import kueue
from tests.k8s.chart import ROOT, Manifest, env_of, only, pod_of, render, run
from tests.k8s.custom import check

K8S = ROOT / "k8s"
PLACEHOLDER = re.compile(r"<\w+>")


def _load(path: Path) -> list[Manifest]:
    return [m for m in yaml.safe_load_all(path.read_text()) if m]


def _kustomized(folder: Path) -> list[Manifest]:
    built = run("kubectl", "kustomize", str(folder))
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)


@pytest.mark.parametrize("script", ["scripts/manifests.py", "scripts/chart.py"])
def test_what_is_made_is_fresh(script: str) -> None:
    checked = _python(script, "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plain_file_has_three_values_to_fill_in(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (K8S / "plain" / f"{profile}.yaml").read_text()
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert sorted(PLACEHOLDER.findall(body)) == ["<bucket>", "<bucket>", "<registry>"]
    [job] = list(yaml.safe_load_all(PLACEHOLDER.sub("x", text)))
    _is_sound(job, profile, monkeypatch)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_applied_with_kustomize(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [job] = _kustomized(K8S / "profiles" / profile)
    _is_sound(job, profile, monkeypatch)


def _is_sound(job: Manifest, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kubernetes_validate.validate(job, "1.37", strict=True)
    container = pod_of(job)["containers"][0]
    for name, value in env_of(container).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.profile == profile
    assert settings.run_id == job["metadata"]["name"]
    assert settings.grace_seconds == pod_of(job)["terminationGracePeriodSeconds"]
    assert not {"helm.sh/chart", "app.kubernetes.io/managed-by"} & job["metadata"]["labels"].keys()


def test_the_values_of_a_profile_reach_the_job(tmp_path: Path) -> None:
    folder = tmp_path / "balanced"
    shutil.copytree(K8S / "profiles" / "balanced", folder)
    values = yaml.safe_load((folder / "run.yaml").read_text())
    given = {
        "image": "r.example/f:2",
        "dataset-uri": "s3://b/d.jsonl",
        "output-uri": "s3://b/o",
        "run-id": "mine",
    }
    assert values["data"].keys() == given.keys()
    values["data"] = given
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    [job] = _kustomized(folder)
    container = pod_of(job)["containers"][0]
    env = env_of(container)
    assert container["image"] == given["image"]
    assert env["FORGE_DATASET_URI"] == given["dataset-uri"]
    assert env["FORGE_OUTPUT_URI"] == given["output-uri"]
    assert env["FORGE_RUN_ID"] == job["metadata"]["name"] == "mine"
    assert job["spec"]["template"]["metadata"]["labels"]["forge-job/run-id"] == "mine"


ARGO = sorted(p for p in (K8S / "argo").glob("*.yaml") if "argoproj" in p.read_text())


@pytest.mark.parametrize("path", ARGO, ids=lambda path: path.stem)
def test_argo_knows_every_field(path: Path) -> None:
    for manifest in _load(path):
        if manifest["kind"].endswith(("Template", "CronWorkflow")):
            check(manifest)


def test_argos_rights_are_an_account_and_two_verbs() -> None:
    manifests = _load(K8S / "argo" / "rbac.yaml")
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
    [rule] = only(manifests, "Role")["rules"]
    assert rule["verbs"] == ["create", "patch"]
    template = only(_load(K8S / "argo" / "workflowtemplate.yaml"), "WorkflowTemplate")
    account = only(manifests, "ServiceAccount")["metadata"]["name"]
    assert template["spec"]["serviceAccountName"] == account


def test_the_promotions_agent_may_hear_and_report() -> None:
    """It runs under the workflow's account, and Argo looks its token up by the Secret's name."""
    manifests = _load(K8S / "argo" / "promote.yaml")
    for manifest in manifests:
        if manifest["kind"] != "WorkflowTemplate":
            kubernetes_validate.validate(manifest, "1.37", strict=True)
    rights = {tuple(r["resources"]): r["verbs"] for r in only(manifests, "Role")["rules"]}
    assert rights == {
        ("workflowtasksets",): ["list", "watch"],
        ("workflowtasksets/status",): ["patch"],
    }
    account = only(_load(K8S / "argo" / "rbac.yaml"), "ServiceAccount")["metadata"]["name"]
    binding = only(manifests, "RoleBinding")
    assert binding["roleRef"]["name"] == only(manifests, "Role")["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    secret = only(manifests, "Secret")
    assert secret["metadata"]["name"] == f"{account}.service-account-token"
    named = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]
    assert named == account


def test_the_nightly_workflow_names_parameters_that_there_are() -> None:
    cron = only(_load(K8S / "argo" / "cronworkflow.yaml"), "CronWorkflow")["spec"]["workflowSpec"]
    template = only(_load(K8S / "argo" / "workflowtemplate.yaml"), "WorkflowTemplate")
    assert cron["workflowTemplateRef"]["name"] == template["metadata"]["name"]
    known = {p["name"] for p in template["spec"]["arguments"]["parameters"]}
    given = {p["name"] for p in cron["arguments"]["parameters"]}
    assert {"profile", "dataset-uri", "output-uri"} <= given <= known, "not the template's own"


@pytest.mark.parametrize("path", sorted((K8S / "kueue").glob("*.yaml")), ids=lambda path: path.stem)
def test_kueue_takes_its_objects(path: Path) -> None:
    manifests = _load(path)
    for manifest in manifests:
        kueue.check(manifest)
    names = {kind: {m["metadata"]["name"] for m in _of(manifests, kind)} for kind in QUEUES}
    for queue in _of(manifests, "ClusterQueue"):
        flavors = queue["spec"]["resourceGroups"][0]["flavors"]
        assert {flavor["name"] for flavor in flavors} <= names["ResourceFlavor"]
    for local in _of(manifests, "LocalQueue"):
        assert local["spec"]["clusterQueue"] in names["ClusterQueue"]


QUEUES = ("ClusterQueue", "ResourceFlavor", "LocalQueue", "WorkloadPriorityClass")


def _of(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


@pytest.mark.parametrize(
    ("queues", "example"),
    [
        ("queues", "kueue-experiment"),
        ("queues", "kueue-release"),
        ("fleet", "fleet"),
    ],
)
def test_kueues_queues_admit_the_examples(queues: str, example: str) -> None:
    """A resource that the queue doesn't cover leaves a Job waiting for ever, and so does a run
    that asks for more than there is."""
    manifests = _load(K8S / "kueue" / f"{queues}.yaml")
    locals_ = {m["metadata"]["name"] for m in _of(manifests, "LocalQueue")}
    classes = {m["metadata"]["name"] for m in _of(manifests, "WorkloadPriorityClass")}
    jobs = _of(render(ROOT / "helm" / "examples" / f"{example}.yaml"), "Job")
    assert jobs
    for queue in _of(manifests, "ClusterQueue"):
        group = queue["spec"]["resourceGroups"][0]
        quota = {q["name"]: q["nominalQuota"] for q in group["flavors"][0]["resources"]}
        for job in jobs:
            labels = job["metadata"]["labels"]
            assert labels["kueue.x-k8s.io/queue-name"] in locals_
            assert labels["kueue.x-k8s.io/priority-class"] in classes
            asked = pod_of(job)["containers"][0]["resources"]["requests"]
            assert _tolerations(manifests) <= _tolerations([pod_of(job)]), "Kueue would add it"
            for name, amount in asked.items():
                assert int(re.sub(r"Gi$", "", amount)) <= int(re.sub(r"Gi$", "", quota[name]))


def _tolerations(holders: list[Manifest]) -> set[str]:
    """Of flavors, or of pods' specs."""
    listed = (holder.get("spec", holder).get("tolerations", ()) for holder in holders)
    return {json.dumps(one, sort_keys=True) for each in listed for one in each}


def test_teams_share_one_cohort_and_a_release_outranks_an_experiment() -> None:
    manifests = _load(K8S / "kueue" / "fleet.yaml")
    queues = _of(manifests, "ClusterQueue")
    assert len({queue["spec"]["cohortName"] for queue in queues}) == 1 < len(queues)
    value = {m["metadata"]["name"]: m["value"] for m in _of(manifests, "WorkloadPriorityClass")}
    assert value["experiment"] < value["release"]
    for queue in queues:
        # borrowWithinCohort would do nothing: a full pool leaves the other queue no more than its
        # own, and that Kueue doesn't touch.
        assert queue["spec"]["preemption"] == {
            "withinClusterQueue": "LowerPriority",
            "reclaimWithinCohort": "Any",
        }
        [team] = queue["spec"]["namespaceSelector"]["matchLabels"].values()
        spaces = {m["metadata"]["namespace"]: m for m in _of(manifests, "LocalQueue")}
        assert spaces[team]["spec"]["clusterQueue"] == queue["metadata"]["name"]


def test_the_fleets_jobs_are_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (K8S / "fleet" / "jobs.yaml").read_text()
    jobs = list(yaml.safe_load_all(PLACEHOLDER.sub("x", text)))
    example = yaml.safe_load((ROOT / "helm" / "examples" / "fleet.yaml").read_text())
    assert [env_of(pod_of(job)["containers"][0])["FORGE_DATASET_URI"] for job in jobs] == [
        entry["datasetUri"] for entry in example["runs"]
    ]
    for job, entry in zip(jobs, example["runs"], strict=True):
        with monkeypatch.context() as patched:
            _is_sound(job, entry.get("profile", "balanced"), patched)


def test_the_examples_for_ci_give_values_that_there_are() -> None:
    from scripts.chart import values

    known = {value.path for value in values()}
    for path in sorted((K8S / "ci").glob("*.yml")):
        assert yaml.safe_load(path.read_text())
        given = set(re.findall(r"--set(?:-literal)? ([\w.]+)=", path.read_text()))
        assert {"profile", "datasetUri", "outputUri", "runId", "image.repository"} <= given <= known
        assert "scripts/wait_for_job.sh" in path.read_text()
        head = "".join(re.findall(r"(?m)^#.*\n", path.read_text()))
        needed = r"--namespace (\w+)|--set serviceAccount.name=(\S+)|existingSecret=(\S+)"
        for names in re.findall(needed, path.read_text()):
            assert "".join(names) in head, "nothing else says that it has to be there"
