"""Every value lands where it should, every setting is reachable, and a run's name holds still."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config import Settings, load_settings
from job.errors import EXIT_CODES
from job.preflight.doctor.needs import Needs
from job.profiles import PROFILES
from job.version import __version__
from scripts.chart import OWN_VALUES, camel_case, values
from tests.k8s.chart import CHART, VALUES, Manifest, env_of, example, only, pod_of, template


def _container(*sets: str) -> Manifest:
    container: Manifest = pod_of(only(example("first-run", *sets), "Job"))["containers"][0]
    return container


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key.replace("~", ".")]
    return tree


TEMPLATE = "spec.template.spec"
JOB = f"{TEMPLATE}.containers.0"
LANDS: dict[str, tuple[Any, str, Any]] = {
    "image.registry": ("reg.example", f"{JOB}.image", None),
    "image.tag": ("v9", f"{JOB}.image", None),
    "image.pullPolicy": ("Always", f"{JOB}.imagePullPolicy", "Always"),
    "imagePullSecrets": ([{"name": "x"}], f"{TEMPLATE}.imagePullSecrets", [{"name": "x"}]),
    "serviceAccount.name": ("trainer", f"{TEMPLATE}.serviceAccountName", "trainer"),
    "gpu.count": (2, f"{JOB}.resources.limits.nvidia~com/gpu", "2"),
    "gpu.resource": ("a.com/vgpu", f"{TEMPLATE}.tolerations.0.key", "a.com/vgpu"),
    "resources.requests": ({"cpu": "7"}, f"{JOB}.resources.requests.cpu", "7"),
    "resources.limits": ({"memory": "9Gi"}, f"{JOB}.resources.limits.memory", "9Gi"),
    "scratch.size": ("9Gi", f"{TEMPLATE}.volumes.0.emptyDir.sizeLimit", "9Gi"),
    "scratch.shmSize": ("3Gi", f"{TEMPLATE}.volumes.1.emptyDir.sizeLimit", "3Gi"),
    "scratch.mountPath": ("/w", f"{JOB}.volumeMounts.0.mountPath", "/w"),
    "scratch.storageClassName": (
        "fast",
        f"{TEMPLATE}.volumes.0.ephemeral.volumeClaimTemplate.spec.storageClassName",
        "fast",
    ),
    "dataset.configMap": ("d", f"{TEMPLATE}.volumes.2.configMap.name", "d"),
    "dataset.volume": ({"emptyDir": {}}, f"{TEMPLATE}.volumes.2.emptyDir", {}),
    "modelVolume.source": ({"emptyDir": {}}, f"{TEMPLATE}.volumes.2.emptyDir", {}),
    "job.command": ("doctor", f"{JOB}.args.0", "doctor"),
    "job.backoffLimit": (3, "spec.backoffLimit", 3),
    "job.activeDeadlineSeconds": (77, "spec.activeDeadlineSeconds", 77),
    "job.ttlSecondsAfterFinished": (5, "spec.ttlSecondsAfterFinished", 5),
    "job.annotations": ({"a": "b"}, "metadata.annotations.a", "b"),
    "terminationGracePeriodSeconds": (99, f"{TEMPLATE}.terminationGracePeriodSeconds", 99),
    "podAnnotations": ({"a": "b"}, "spec.template.metadata.annotations.a", "b"),
    "podLabels": ({"a": "b"}, "spec.template.metadata.labels.a", "b"),
    "commonLabels": ({"a": "b"}, "metadata.labels.a", "b"),
    "nodeSelector": ({"a": "b"}, f"{TEMPLATE}.nodeSelector.a", "b"),
    "tolerations": ([{"key": "x", "operator": "Exists"}], f"{TEMPLATE}.tolerations.1.key", "x"),
    "affinity": ({"podAffinity": {}}, f"{TEMPLATE}.affinity.podAffinity", {}),
    "topologySpreadConstraints": (
        [{"maxSkew": 1}],
        f"{TEMPLATE}.topologySpreadConstraints.0.maxSkew",
        1,
    ),
    "priorityClassName": ("p", f"{TEMPLATE}.priorityClassName", "p"),
    "runtimeClassName": ("nvidia", f"{TEMPLATE}.runtimeClassName", "nvidia"),
    "schedulerName": ("s", f"{TEMPLATE}.schedulerName", "s"),
    "podSecurityContext.runAsUser": (5, f"{TEMPLATE}.securityContext.runAsUser", 5),
    "podSecurityContext.fsGroup": (6, f"{TEMPLATE}.securityContext.fsGroup", 6),
    "extraEnv": ([{"name": "A", "value": "b"}], f"{JOB}.env.-1.value", "b"),
    "extraEnvFrom": ([{"secretRef": {"name": "x"}}], f"{JOB}.envFrom.1.secretRef.name", "x"),
    "extraVolumes": ([{"name": "x", "emptyDir": {}}], f"{TEMPLATE}.volumes.2.name", "x"),
    "extraVolumeMounts": (
        [{"name": "x", "mountPath": "/x"}],
        f"{JOB}.volumeMounts.2.mountPath",
        "/x",
    ),
    "kueue.queueName": ("q", "metadata.labels.kueue~x-k8s~io/queue-name", "q"),
    "kueue.priorityClass": ("p", "metadata.labels.kueue~x-k8s~io/priority-class", "p"),
    "kueue.preferredTopology": (
        "rack",
        "spec.template.metadata.annotations.kueue~x-k8s~io/podset-preferred-topology",
        "rack",
    ),
    "metrics.port": (9999, f"{JOB}.ports.0.containerPort", 9999),
    "credentials.existingSecret": ("c", f"{JOB}.envFrom.0.secretRef.name", "c"),
    "fullnameOverride": ("other", f"{JOB}.name", "job"),
}
"""Value → what it is set to, where in the Job that lands, and as what."""

ELSEWHERE = {
    "profile": "test_chart_matrix",
    "datasetUri": "test_every_setting_is_a_value",
    "outputUri": "test_every_setting_is_a_value",
    "runs": "test_chart_fleets",
    "runId": "test_a_run_id_of_ones_own_fixes_the_name",
    "modelFamily": "test_every_setting_is_a_value",
    "model": "test_every_setting_is_a_value",
    "settings": "test_every_setting_is_a_value",
    "image.repository": "test_an_image_is_named_by_what_there_is",
    "image.digest": "test_an_image_is_named_by_what_there_is",
    "credentials.workloadIdentity": "test_an_identity_needs_no_secret",
    "huggingFace.existingSecret": "test_the_hubs_token_comes_from_its_secret",
    "huggingFace.key": "test_the_hubs_token_comes_from_its_secret",
    "s3.endpointUrl": "test_the_store_is_named_to_boto3",
    "s3.region": "test_the_store_is_named_to_boto3",
    "serviceAccount.create": "test_an_identity_needs_no_secret",
    "serviceAccount.annotations": "test_an_identity_needs_no_secret",
    "gpu.enabled": "test_chart_matrix",
    "dataset.mountPath": "test_data_and_models_lie_where_they_are_said_to",
    "modelVolume.mountPath": "test_data_and_models_lie_where_they_are_said_to",
    "job.enabled": "test_chart_objects",
    "job.keep": "test_an_upgrade_kills_nothing",
    "disruption.protect": "test_nothing_moves_the_pod_for_tidiness",
    "distributed.kind": "test_chart_distributed",
    "distributed.nodes": "test_chart_distributed",
    "distributed.port": "test_chart_distributed",
    "extraObjects": "test_chart_objects",
    "validation.preInstall": "test_chart_objects",
    "validation.nodeSelector": "test_chart_objects",
    "validation.tolerations": "test_chart_objects",
    "validation.resources": "test_chart_objects",
}
"""Values that other tests look at."""


@pytest.mark.parametrize(
    "resource",
    [
        "nvidia.com/gpu.shared",
        "k8s.amazonaws.com/vgpu",
        "aliyun.com/gpu-mem",
        "volcano.sh/vgpu-number",
    ],
)
def test_nvidias_cards_have_other_names_too(resource: str) -> None:
    assert _container(f'gpu.resource="{resource}"')["resources"]["limits"][resource] == "1"


@pytest.mark.parametrize("path", LANDS)
def test_it_lands_where_it_should(path: str) -> None:
    given, where, expected = LANDS[path]
    needed = {"dataset.volume": ['dataset.configMap=""']}.get(path, [])
    job = only(example("first-run", *needed, f"{path}={json.dumps(given)}"), "Job")
    found = _at(job, where)
    if path.startswith("image.") and expected is None:
        assert given in found
    else:
        assert found == expected


def test_every_value_has_such_a_test() -> None:
    covered = LANDS.keys() | ELSEWHERE.keys()
    groups = ("metrics.", "networkPolicy.", "argo.")  # objects of their own: test_chart_objects
    paths = {v.path for v in values() if not v.path.startswith(groups)} | {"metrics.port"}
    assert paths == covered


def _resources(profile: str, count: int, *sets: str) -> Manifest:
    given = (f'profile="{profile}"', f"gpu.count={count}", *sets)
    return dict(_container(*given)["resources"])


def _bytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi")) * 2**30


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_pod_has_memory_and_cpus_for_a_process_a_card(profile: str, count: int) -> None:
    found = _resources(profile, count)
    required = {"run_id": "r", "dataset_uri": "s3://b/d/", "output_uri": "s3://b/out"}
    needs = Needs.of(load_settings(**required, profile=profile))
    needed = needs.memory(gpu=True, processes=count) + (needs.weights or 0)
    assert found["limits"]["memory"] == found["requests"]["memory"]
    assert needed * 1.5 < _bytes(found["limits"]["memory"])
    assert int(found["requests"]["cpu"]) == 3 * count


def test_one_process_is_all_that_a_pod_without_cards_has() -> None:
    found = _resources("balanced", 8, "gpu.enabled=false", 'settings.engine="reference"')
    assert (found["requests"]["cpu"], found["limits"]["memory"]) == ("3", "24Gi")


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ('resources.limits={"memory":"40Gi"}', {"cpu": "24", "memory": "40Gi"}, "40Gi"),
        ('resources.requests={"memory":"40Gi"}', {"cpu": "24", "memory": "40Gi"}, "40Gi"),
        (
            'resources={"requests":{"memory":"20Gi","cpu":"7"},"limits":{"memory":"40Gi"}}',
            {"cpu": "7", "memory": "20Gi"},
            "40Gi",
        ),
        ('resources.limits={"cpu":"2"}', {"cpu": "2", "memory": "80Gi"}, "80Gi"),
    ],
)
def test_resources_of_ones_own_stay_as_they_are(
    given: str, requests: dict[str, str], limits: str
) -> None:
    """And no request is above its limit, which the API server would refuse."""
    found = _resources("balanced", 8, given)
    assert found["requests"].items() >= requests.items()
    assert found["limits"]["memory"] == limits


@pytest.mark.parametrize("profile", ["balanced", "max_quality"])
@pytest.mark.parametrize("side", ["limits", "requests"])
@pytest.mark.parametrize("size", ["20Gi", "100Gi"])
def test_what_is_said_of_the_disk_on_one_side_goes_for_the_other(
    profile: str, side: str, size: str
) -> None:
    """As with memory. What the profile asks for would be above the limit, or below the request."""
    found = _resources(profile, 1, f'resources.{side}={{"ephemeral-storage":"{size}"}}')
    assert {found[of]["ephemeral-storage"] for of in ("requests", "limits")} == {size}


def _refused(name: str, request: str, limit: str, at: str = "resources") -> bool:
    sides = json.dumps({"requests": {name: request}, "limits": {name: limit}})
    values = VALUES / "first-run.yaml"
    rendered = template(values, options=(f"--set-json={at}={sides}",))
    assert (rendered.returncode != 0) is (f"\n- {at}: the request of" in rendered.stderr)
    return rendered.returncode != 0


@pytest.mark.parametrize(
    ("request_", "limit", "refused"),
    [
        ("8", "4", True),
        ("4", "8", False),
        ("4", "4", False),
        ("1500m", "1", True),
        ("500m", "1", False),
        ("0.5", "400m", True),
        ("100m", "0.1", False),
        ("1Gi", "1024Mi", False),
        ("1Gi", "1000Mi", True),
        ("1G", "1Gi", False),
        ("1Gi", "1G", True),
        ("1e3", "1k", False),
        ("9", "10", False),
        ("1E", "999P", True),
        ("no quantity", "4", False),  # the API server says so better
    ],
)
def test_a_request_above_its_limit_is_refused_in_any_unit(
    request_: str, limit: str, refused: bool
) -> None:
    assert _refused("memory", request_, limit) is refused


def test_so_is_one_of_the_pods_that_validate() -> None:
    assert _refused("cpu", "8", "4", at="validation.resources")
    assert not _refused("cpu", "4", "4", at="validation.resources")


def test_every_value_is_documented() -> None:
    documented = {value.path for value in values()}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    leaves = set(_leaves(defaults))
    assert {leaf for leaf in leaves if not any(_covers(d, leaf) for d in documented)} == set()


def _leaves(tree: Any, path: str = "") -> list[str]:
    if not isinstance(tree, dict) or not tree:
        return [path]
    return [leaf for k, v in tree.items() for leaf in _leaves(v, f"{path}.{k}".strip("."))]


def _covers(documented: str, leaf: str) -> bool:
    return leaf == documented or leaf.startswith(documented + ".")


def test_every_setting_is_a_value() -> None:
    """And the other way round: the schema knows no setting that the job doesn't."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    below = set(schema["properties"]["settings"]["properties"])
    assert below == {camel_case(name) for name in Settings.model_fields if name not in OWN_VALUES}
    for name in below:
        kind = schema["properties"]["settings"]["properties"][name]
        given = _sample(kind)
        # Only a run that is named may accept a change.
        env = env_of(_container('runId="named"', f"settings.{name}={json.dumps(given)}"))
        [field] = [f for f in Settings.model_fields if camel_case(f) == name]
        written = ",".join(given) if isinstance(given, list) else str(given)
        written = written.lower() if isinstance(given, bool) else written
        assert env[f"FORGE_{field.upper()}"] == written
    for field, value in OWN_VALUES.items():
        sample = {"datasetUri": "s3://b/x.jsonl", "outputUri": "s3://b/o"}.get(value)
        if sample:
            env = env_of(_container(f'{value}="{sample}"'))
            assert env[f"FORGE_{field.upper()}"] == sample


def _sample(kind: dict[str, Any]) -> Any:
    if "anyOf" in kind:
        kind = kind["anyOf"][0]
    if "enum" in kind:
        return kind["enum"][-1]
    names = {"integer": 1000000, "number": 0.5, "string": "/x", "boolean": False}
    if "maximum" in kind and kind["type"] == "integer":
        return kind["maximum"]
    return ["seed", "x"] if isinstance(kind["type"], list) else names[kind["type"]]


def test_the_versions_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_the_failure_policy_is_the_table_of_exit_codes() -> None:
    rules = only(example("first-run"), "Job")["spec"]["podFailurePolicy"]["rules"]
    assert rules[0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    by_action = {r["action"]: r["onExitCodes"]["values"] for r in rules[1:]}
    for action in ("Ignore", "FailJob"):
        assert by_action[action] == [c for c, (_, policy) in EXIT_CODES.items() if policy == action]


def test_the_grace_period_is_one_value() -> None:
    pod = pod_of(only(example("first-run", "terminationGracePeriodSeconds=77"), "Job"))
    assert pod["terminationGracePeriodSeconds"] == 77
    assert env_of(pod["containers"][0])["FORGE_GRACE_SECONDS"] == "77"


@pytest.mark.parametrize(
    ("profile", "seconds"), [("fast_dev", 60), ("balanced", 60), ("max_quality", 120)]
)
def test_without_one_a_pod_has_the_grace_of_its_profile(profile: str, seconds: int) -> None:
    pod = pod_of(only(example("first-run", f'profile="{profile}"'), "Job"))
    assert pod["terminationGracePeriodSeconds"] == seconds
    assert env_of(pod["containers"][0])["FORGE_GRACE_SECONDS"] == str(seconds)


def test_the_same_values_name_the_same_run_and_others_another() -> None:
    name = _name()
    assert _name() == name
    assert _name(options=("--is-upgrade",)) == name
    assert _name("settings.loraR=32") != name
    assert _name('image.tag="9"') != name
    assert _name(namespace="other") != name
    assert _name("metrics.podMonitor.enabled=true") == name, "nothing of the run has changed"
    assert env_of(_container())["FORGE_RUN_ID"] == name


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("podSecurityContext={}", {"runAsUser": 10001, "fsGroup": 10001}),  # unless it is asked for
        ("podSecurityContext.runAsUser=null", {"fsGroup": 10001}),
        ("podSecurityContext.fsGroup=null", {"runAsUser": 10001}),
        ("podSecurityContext.fsGroup=0", {"runAsUser": 10001, "fsGroup": 0}),
        ("podSecurityContext=null", {}),
    ],
)
def test_user_and_group_may_be_left_to_the_cluster(given: str, left: dict[str, int]) -> None:
    """OpenShift gives each namespace a range of its own, and takes no other."""
    manifests = example("first-run", given)
    for pod in (pod_of(only(manifests, "Job")), only(manifests, "Pod")["spec"]):
        security = dict(pod["securityContext"])
        assert {k: security.pop(k) for k in ("runAsUser", "fsGroup") if k in security} == left
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(
    ("resource", "tolerated"),
    [
        ("nvidia.com/gpu", ["nvidia.com/gpu"]),
        ("nvidia.com/mig-3g.40gb", ["nvidia.com/mig-3g.40gb", "nvidia.com/gpu"]),
        ("nvidia.com/gpu.shared", ["nvidia.com/gpu.shared", "nvidia.com/gpu"]),
        ("a.com/vgpu", ["a.com/vgpu"]),
    ],
)
def test_the_taint_of_a_node_with_cards_is_tolerated(resource: str, tolerated: list[str]) -> None:
    """By custom, and on GKE, that is `nvidia.com/gpu`, whatever slice of a card is asked for."""
    pod = pod_of(only(example("first-run", f'gpu.resource="{resource}"'), "Job"))
    assert [toleration["key"] for toleration in pod["tolerations"]] == tolerated
    assert {(t["operator"], t["effect"]) for t in pod["tolerations"]} == {("Exists", "NoSchedule")}


def _name(*sets: str, **where: Any) -> str:
    job = only(example("first-run", *sets, **where), "Job")
    assert job["spec"]["template"]["metadata"]["labels"]["forge-job/run-id"]
    return str(job["metadata"]["name"])


def test_a_run_id_of_ones_own_fixes_the_name() -> None:
    assert _name('runId="first"') == _name('runId="first"', "settings.loraR=3") == "weather-first"
    assert _name('runId="weather-2"') == "weather-2"
    assert env_of(_container('runId="first"'))["FORGE_RUN_ID"] == "first"


def test_a_new_chart_does_not_change_a_running_job(tmp_path: Path) -> None:
    """A Job's template is immutable: the chart's version must not be in it."""
    job = only(example("first-run"), "Job")
    assert job["metadata"]["labels"]["helm.sh/chart"]
    assert __version__ not in json.dumps(job["spec"]["template"]["metadata"])


def test_an_upgrade_kills_nothing() -> None:
    kept = only(example("first-run"), "Job")["metadata"]
    assert kept["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "annotations" not in only(example("first-run", "job.keep=false"), "Job")["metadata"]


def test_nothing_moves_the_pod_for_tidiness() -> None:
    template = only(example("first-run"), "Job")["spec"]["template"]["metadata"]
    assert template["annotations"] == {
        "karpenter.sh/do-not-disrupt": "true",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    }
    free = only(example("first-run", "disruption.protect=false"), "Job")["spec"]["template"]
    assert "annotations" not in free["metadata"]


def test_an_image_is_named_by_what_there_is() -> None:
    digest = "sha256:" + "0" * 64
    assert _container('image.registry="r.example"', 'image.repository="a/b"', 'image.tag="1"')[
        "image"
    ] == ("r.example/a/b:1")
    pinned = _container(f'image.digest="{digest}"', 'image.tag="1"')
    assert pinned["image"].endswith(f"@{digest}")
    assert env_of(pinned)["FORGE_IMAGE"] == pinned["image"]
    assert _container()["image"].endswith(f":{__version__}")


def test_an_identity_needs_no_secret() -> None:
    manifests = example("gke-identity")
    account = only(manifests, "ServiceAccount")
    assert "iam.gke.io/gcp-service-account" in account["metadata"]["annotations"]
    pod = pod_of(only(manifests, "Job"))
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert "envFrom" not in pod["containers"][0]


def test_the_hubs_token_comes_from_its_secret() -> None:
    container = pod_of(only(example("gated-model"), "Job"))["containers"][0]
    token = next(v for v in container["env"] if v["name"] == "HF_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token"}


def test_the_store_is_named_to_boto3() -> None:
    env = env_of(pod_of(only(example("ceph"), "Job"))["containers"][0])
    assert env["AWS_ENDPOINT_URL_S3"] == "http://rgw.storage.svc:8080"
    assert env["AWS_DEFAULT_REGION"] == "default"


def test_data_and_models_lie_where_they_are_said_to() -> None:
    data = pod_of(only(example("data-volume"), "Job"))["containers"][0]["volumeMounts"]
    assert {"name": "dataset", "mountPath": "/datasets", "readOnly": True} in data
    sets = ('modelVolume.mountPath="/m"', 'model="/m/qwen"')
    models = pod_of(only(example("model-volume", *sets), "Job"))["containers"][0]["volumeMounts"]
    assert {"name": "models", "mountPath": "/m", "readOnly": True} in models
