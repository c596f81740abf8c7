"""The Argo templates of one run; those of many are in test_chart_fleets.

No Argo runs here. Its templates are checked against its models. The step that calls the promotion
is in test_chart_promotion.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from job.errors import EXIT_CODES, NoProgress
from job.ledger import Ledger, give_up_without_progress
from job.storage import open_storage
from tests.k8s.chart import Manifest, env_of, example, only, pod_of
from tests.k8s.custom import check
from tests.k8s.workflows import HOOK, made_of_inputs, template_of


@pytest.fixture(params=["argo", "argo-cluster-wide"])
def workflow(request: pytest.FixtureRequest) -> Manifest:
    manifests = example(request.param)
    assert not [m for m in manifests if m["kind"] == "Job"], "job.enabled=false"
    found = [m for m in manifests if m["kind"].endswith("WorkflowTemplate")]
    return next(m for m in found if m["metadata"]["name"] == "weather")


def test_argo_knows_every_field(workflow: Manifest) -> None:
    check(workflow)


def test_argos_steps_are_the_jobs(workflow: Manifest) -> None:
    train = template_of(workflow, "train")
    job = pod_of(only(example("first-run"), "Job"))["containers"][0]
    assert train["container"]["args"] == job["args"]
    assert train["container"]["command"] == ["python", "-m", "job"]
    assert train["container"]["resources"] == job["resources"]
    assert train["container"]["volumeMounts"] == job["volumeMounts"]
    env = env_of(train["container"])
    parameters = {p["name"] for p in workflow["spec"]["arguments"]["parameters"]}
    for name in parameters:
        variable = "FORGE_" + name.replace("-", "_").upper()
        assert env.pop(variable) == f"{{{{inputs.parameters.{name}}}}}"
    assert env.items() <= env_of(job).items()
    for name in ("run", "validate", "train", "verdict"):
        inputs = template_of(workflow, name)["inputs"]["parameters"]
        assert {p["name"] for p in inputs} == parameters
    for name in ("validate", "verdict"):
        assert "nvidia.com/gpu" not in json.dumps(template_of(workflow, name))


def test_argo_retries_what_the_policy_does_not_end(workflow: Manifest) -> None:
    strategy = template_of(workflow, "train")["retryStrategy"]
    assert "retryPolicy" not in strategy
    [listed] = re.findall(r"\[([-\d, ]+)\]", strategy["expression"])
    codes = {int(code) for code in listed.split(",")}
    final = {code for code, (_, policy) in EXIT_CODES.items() if policy in ("FailJob", "–")}
    assert not codes & final
    assert {-1, 69, 70, 75, 137, 143} == codes, "76: a newer attempt has the run"


def _retried(
    workflow: Manifest, code: int, message: str = "", status: str = "Failed", step: str = "train"
) -> bool:
    """What the expression says, which is also Python but for three words."""
    text = template_of(workflow, step)["retryStrategy"]["expression"]
    text = re.sub(r"!\(([\w.]+) contains ('\w+')\)", r"\2 not in \1", text)
    text = text.replace("||", "or").replace("&&", "and").replace("asInt", "int")
    last = SimpleNamespace(status=status, exitCode=str(code), message=message)
    return bool(eval(text, {"lastRetry": last}))  # noqa: S307 - our own text


def _claimed(folder: Path) -> Ledger:
    """By an attempt that took the place of one which was killed."""
    storage = open_storage(str(folder))
    return Ledger.claim(storage, "run", version="1", conditional_writes=True)


def test_argo_does_not_retry_a_run_that_gave_up(workflow: Manifest, tmp_path: Path) -> None:
    """Its code is that of other faults, which are worth a retry; Argo's message has the pod's."""
    claims = [_claimed(tmp_path) for _ in range(4)]
    with pytest.raises(NoProgress) as gave_up:
        give_up_without_progress(claims[-1], 3)
    told = f"main: Error (exit code 70): exit 70: {gave_up.value}"
    assert not _retried(workflow, 70, told)
    assert _retried(workflow, 70, "main: Error (exit code 70): exit 70: an unexpected error")
    assert _retried(workflow, 75, "main: Error (exit code 75): exit 75: preempted")
    assert _retried(workflow, -1, "pod deleted", status="Error")
    assert not _retried(workflow, 78, "main: Error (exit code 78)")


@pytest.mark.parametrize(
    "message",
    [
        "Pod was rejected: Allocate failed due to no healthy devices present, which is unexpected",
        "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity",
    ],
)
def test_argo_retries_a_pod_that_the_kubelet_rejected(workflow: Manifest, message: str) -> None:
    """No container of it has begun: it is `Failed`, and -1 stands for the code that there isn't."""
    assert _retried(workflow, -1, message)


CPU_STEPS = {("", "validate"), ("", "verdict"), ("-sweep", "plan"), ("-sweep", "summary"),
             ("-fleet", "plan"), ("-fleet", "summary"), ("-fleet", "verdict")}  # fmt: skip


@pytest.mark.parametrize(("of", "step"), sorted(CPU_STEPS))
def test_a_throttled_store_or_a_lost_node_fails_no_workflow(of: str, step: str) -> None:
    """Of the steps without a GPU too: the training before or after one of them is worth more."""
    found = {m["metadata"]["name"]: m for m in example("argo", HOOK)}[f"weather{of}"]
    for code in (-1, 69, 70, 137, 143):
        assert _retried(found, code, step=step)
    assert _retried(found, -1, "pod deleted", status="Error", step=step)
    for code, (_, policy) in EXIT_CODES.items():
        assert not (policy == "FailJob" and _retried(found, code, step=step)), "can't mend itself"
    strategy = template_of(found, step)["retryStrategy"]
    assert "retryPolicy" not in strategy, "it would outrank the expression"
    backoff = strategy["backoff"]
    first, factor = int(backoff["duration"].removesuffix("s")), int(backoff["factor"])
    assert sum(first * factor**n for n in range(int(strategy["limit"]))) >= 15 * 60


def test_argo_retries_as_long_as_a_job_replaces_its_pods(workflow: Manifest) -> None:
    """Argo counts preemptions, and a pod's deadline begins anew with each."""
    train = template_of(workflow, "train")
    assert int(train["retryStrategy"]["limit"]) >= 100
    backoff = train["retryStrategy"]["backoff"]
    assert int(backoff["maxDuration"]) == train["activeDeadlineSeconds"] == 3 * 86400
    waits = {int(backoff["factor"]) ** retry for retry in range(100)}
    assert waits == {1}, "Argo's arithmetic overflows"


def test_argo_reads_the_verdict_of_a_failed_run_and_fails_all_the_same(workflow: Manifest) -> None:
    dag = template_of(workflow, "run")["dag"]
    tasks = {task["name"]: task for task in dag["tasks"]}
    assert tasks["verdict"]["depends"] == "train || train.Failed || train.Errored"
    assert "train" in dag["target"].split()
    outputs = {p["name"] for p in template_of(workflow, "run")["outputs"]["parameters"]}
    assert outputs == {"run-uri", "adapter-uri", "verdict"}
    if promote := tasks.get("promote"):
        assert promote["templateRef"]["name"] == "promote-adapter"
        assert "train.Succeeded" in promote["depends"]


@pytest.mark.parametrize("output", ["s3://bucket/runs", "s3://bucket/runs/"])
def test_a_slash_at_the_outputs_end_is_not_doubled(workflow: Manifest, output: str) -> None:
    inputs = {"output-uri": output, "run-id": "run"}
    assert made_of_inputs(template_of(workflow, "verdict"), inputs) == {
        "run-uri": "s3://bucket/runs/run",
        "adapter-uri": "s3://bucket/runs/run/adapter",
    }


def test_argos_values_land(workflow: Manifest) -> None:
    sets = (
        "argo.retryLimit=3",
        'argo.kind="ClusterWorkflowTemplate"',
        'argo.serviceAccountName="sa"',
        'argo.promote={"templateRef":"p","template":"go"}',
    )
    found, *_ = (m for m in example("argo", *sets) if m["metadata"]["name"] == "weather")
    assert found["spec"]["serviceAccountName"] == "sa"
    assert "namespace" not in found["metadata"]
    assert template_of(found, "train")["retryStrategy"]["limit"] == "3"
    tasks: list[dict[str, Any]] = template_of(found, "run")["dag"]["tasks"]
    assert tasks[-1]["templateRef"] == {"name": "p", "template": "go"}


def test_what_a_failed_workflow_has_is_an_output_of_its_last_step() -> None:
    """The outputs of a DAG are set where it succeeds, and nowhere else."""
    found = {m["metadata"]["name"]: m for m in example("argo")}
    for name, entry, leaf in (
        ("weather", "run", "verdict"),
        ("weather-sweep", "sweep", "summary"),
        ("weather-fleet", "fleet", "summary"),
    ):
        outputs = template_of(found[name], leaf)["outputs"]["parameters"]
        promised = {p["name"] for p in template_of(found[name], entry)["outputs"]["parameters"]}
        assert {p["name"]: p.get("globalName") for p in outputs} == {n: n for n in promised}
        others = [t for t in found[name]["spec"]["templates"] if t["name"] != leaf]
        assert "globalName" not in json.dumps(others), "two of one name would take turns"


# -- pods --------------------------------------------------------------------------------------


def _steps(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Every template that makes a pod."""
    workflows = [m for m in manifests if m["kind"].endswith("WorkflowTemplate")]
    named = [(f"{m['metadata']['name']}/{t['name']}", t) for m in workflows for t in _all(m)]
    return {name: template for name, template in named if "container" in template}


def _all(workflow: Manifest) -> list[Manifest]:
    found: list[Manifest] = workflow["spec"]["templates"]
    return found


def test_every_step_has_the_identity() -> None:
    manifests = example("argo-identity")
    account = only(manifests, "ServiceAccount")["metadata"]
    assert "azure.workload.identity/client-id" in account["annotations"]
    workflows = [m["spec"] for m in manifests if m["kind"] == "WorkflowTemplate"]
    assert len(workflows) == 3
    for spec in workflows:
        assert spec["serviceAccountName"] == account["name"]
        assert spec["automountServiceAccountToken"] is True, "the account itself says no"
    steps = _steps(manifests)
    assert {name.partition("/")[2] for name in steps} == {
        "validate", "train", "verdict", "plan", "summary"
    }  # fmt: skip
    for name, step in steps.items():
        assert "retryStrategy" in step, name
        labels = step["metadata"]["labels"]
        assert labels["azure.workload.identity/use"] == "true", name


def test_the_releases_account_may_report_and_no_other_gets_a_role() -> None:
    manifests = example("argo-identity")
    [rule] = only(manifests, "Role")["rules"]
    assert rule["resources"] == ["workflowtaskresults"]
    assert rule["verbs"] == ["create", "patch"]
    binding = only(manifests, "RoleBinding")
    assert binding["roleRef"]["name"] == only(manifests, "Role")["metadata"]["name"]
    [subject] = binding["subjects"]
    assert subject["name"] == only(manifests, "ServiceAccount")["metadata"]["name"]
    assert subject["namespace"] == "ml"
    for own in ("argo", "argo-cluster-wide"):
        assert not [m for m in example(own) if m["kind"].startswith("Role")], own
    given = example("argo-identity", 'argo.serviceAccountName="mine"')
    assert not [m for m in given if m["kind"].startswith("Role")]
    [first, *_] = [m["spec"] for m in given if m["kind"] == "WorkflowTemplate"]
    assert first["serviceAccountName"] == "mine"
    assert "automountServiceAccountToken" not in first


def test_an_account_that_is_only_named_is_the_workflows_too() -> None:
    sets = ("serviceAccount.create=false", "serviceAccount.annotations=null")
    manifests = example("argo-identity", *sets, 'serviceAccount.name="trainer"')
    assert not [m for m in manifests if m["kind"] == "ServiceAccount"]
    assert only(manifests, "RoleBinding")["subjects"][0]["name"] == "trainer"


def test_the_pod_that_trains_runs_where_the_jobs_does() -> None:
    """Two fields have no place in a template: they are in its patch."""
    spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    sets = ('runtimeClassName="nvidia"', f"topologySpreadConstraints={json.dumps(spread)}")
    train = _steps(example("argo", *sets, 'nodeSelector={"a":"b"}'))["weather/train"]
    patch = json.loads(train["podSpecPatch"])
    assert patch == {
        "terminationGracePeriodSeconds": 60,
        "enableServiceLinks": False,
        "runtimeClassName": "nvidia",
        "topologySpreadConstraints": spread,
    }
    assert train["nodeSelector"] == {"a": "b"}
    plain = _steps(example("argo"))
    for name in ("weather/train", "weather/validate"):
        patch = json.loads(plain[name]["podSpecPatch"])
        assert patch == {"terminationGracePeriodSeconds": 60, "enableServiceLinks": False}
