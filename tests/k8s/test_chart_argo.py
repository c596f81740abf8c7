"""The Argo templates of one run; those of many are in test_chart_fleets.

No Argo runs here. Its templates are checked against its models, and the step that calls the
promotion is judged by its own expression, over what the step before it prints.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from job.__main__ import main
from job.gate import PASSED
from job.storage import open_storage
from tests.fleet.test_fleet_status import a_record, store
from tests.k8s.chart import Manifest, env_of, example, only, pod_of
from tests.k8s.custom import check


@pytest.fixture(params=["argo", "argo-cluster-wide"])
def workflow(request: pytest.FixtureRequest) -> Manifest:
    manifests = example(request.param)
    assert not [m for m in manifests if m["kind"] == "Job"], "job.enabled=false"
    found = [m for m in manifests if m["kind"].endswith("WorkflowTemplate")]
    return next(m for m in found if m["metadata"]["name"] == "weather")


def test_argo_knows_every_field(workflow: Manifest) -> None:
    check(workflow)


def _template(workflow: Manifest, name: str) -> Manifest:
    found: Manifest = next(t for t in workflow["spec"]["templates"] if t["name"] == name)
    return found


def test_argos_steps_are_the_jobs(workflow: Manifest) -> None:
    train = _template(workflow, "train")
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
        assert {p["name"] for p in _template(workflow, name)["inputs"]["parameters"]} == parameters
    for name in ("validate", "verdict"):
        assert "nvidia.com/gpu" not in json.dumps(_template(workflow, name))


def test_argo_retries_what_the_policy_does_not_end(workflow: Manifest) -> None:
    from job.errors import EXIT_CODES

    strategy = _template(workflow, "train")["retryStrategy"]
    assert "retryPolicy" not in strategy
    [listed] = re.findall(r"\[([\d, ]+)\]", strategy["expression"])
    codes = {int(code) for code in listed.split(",")}
    final = {code for code, (_, policy) in EXIT_CODES.items() if policy in ("FailJob", "–")}
    assert not codes & final
    assert {69, 70, 75, 137, 143} == codes, "76: a newer attempt has the run"


def test_argo_reads_the_verdict_of_a_failed_run_and_fails_all_the_same(workflow: Manifest) -> None:
    dag = _template(workflow, "run")["dag"]
    tasks = {task["name"]: task for task in dag["tasks"]}
    assert "train.Failed" in tasks["verdict"]["depends"]
    assert "train" in dag["target"].split()
    outputs = {p["name"] for p in _template(workflow, "run")["outputs"]["parameters"]}
    assert outputs == {"run-uri", "adapter-uri", "verdict"}
    if promote := tasks.get("promote"):
        assert promote["templateRef"]["name"] == "promote-adapter"
        assert "train.Succeeded" in promote["depends"]


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
    assert _template(found, "train")["retryStrategy"]["limit"] == "3"
    tasks: list[dict[str, Any]] = _template(found, "run")["dag"]["tasks"]
    assert tasks[-1]["templateRef"] == {"name": "p", "template": "go"}


# -- the promotion -----------------------------------------------------------------------------

VERDICT = r"tasks\.verdict\.outputs\.parameters\.verdict"
CLAUSE = re.compile(rf"jsonpath\({VERDICT}, '\$\.(\w+)'\)(?:\.(\w+))? == (true|'(\w+)')")


def _fires(promote: Manifest, verdict: str) -> bool:
    """What `when` comes to: the part of Argo's language that it is written in. A `?` and a `:`
    would be cut in two by releases of Argo that look for a condition in them."""
    [expression] = re.findall(r"^\{\{=(.*)\}\}$", promote["when"])
    assert "?" not in expression
    found = json.loads(verdict)
    holds = []
    for clause in expression.split(" && "):
        matched = CLAUSE.fullmatch(clause)
        assert matched, clause
        value = found[matched[1]]  # jsonpath() of a key that isn't there is an error, as here
        value = value.get(matched[2]) if matched[2] else value
        holds.append(value == (matched[4] or True))
    return all(holds)


@pytest.mark.parametrize(
    ("gate", "named", "fires"),
    [
        (PASSED, "run", True),
        (PASSED, "another", False),  # FORGE_PROMOTE=never, or a better one is named
        (PASSED, None, False),
        ("not set", None, False),
        ("not set", "run", False),  # named by hand
        (None, "run", False),  # the record of an older release
    ],
)
def test_argo_calls_the_promotion_of_a_run_that_is_promoted_and_of_no_other(
    gate: str | None, named: str | None, fires: bool, tmp_path: Path
) -> None:
    found = example("argo-cluster-wide", f'scratch.mountPath="{tmp_path}"')
    workflow = next(m for m in found if m["metadata"]["name"] == "weather")
    storage = open_storage(str(tmp_path / "runs"))
    store(storage, a_record("run", "succeeded", results={} if gate is None else {"gate": gate}))
    if named:
        storage.write("promoted.json", json.dumps({"run_id": named}).encode())
    given = {"output-uri": storage.uri, "run-id": "run"}
    step = _template(workflow, "verdict")
    words = [
        re.sub(r"\{\{inputs\.parameters\.([\w-]+)\}\}", lambda m: given[m[1]], word)
        for word in step["container"]["args"]
    ]

    assert main(words) == 0

    [printed] = [p["valueFrom"] for p in step["outputs"]["parameters"] if "valueFrom" in p]
    tasks = {task["name"]: task for task in _template(workflow, "run")["dag"]["tasks"]}
    assert _fires(tasks["promote"], Path(printed["path"]).read_text()) is fires


def test_what_a_failed_workflow_has_is_an_output_of_its_last_step() -> None:
    """The outputs of a DAG are set where it succeeds, and nowhere else."""
    found = {m["metadata"]["name"]: m for m in example("argo")}
    for name, entry, leaf in (
        ("weather", "run", "verdict"),
        ("weather-sweep", "sweep", "summary"),
        ("weather-fleet", "fleet", "summary"),
    ):
        outputs = _template(found[name], leaf)["outputs"]["parameters"]
        promised = {p["name"] for p in _template(found[name], entry)["outputs"]["parameters"]}
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
