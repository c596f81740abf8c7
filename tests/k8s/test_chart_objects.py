"""The objects of a release beside the Job."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from job.metrics import BuildInfo, Metrics
from tests.k8s.chart import CHART, ROOT, VALUES, all_of, env_of, example, named, only, pod_of, run
from tests.k8s.custom import check


def test_nothing_but_the_job_and_its_test_by_default() -> None:
    assert sorted(m["kind"] for m in example("first-run")) == ["Job", "Pod"]


def test_the_releases_test_looks_at_the_machine_and_the_data_without_a_gpu() -> None:
    pod = only(example("first-run"), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert [c["args"] for c in pod["spec"]["initContainers"]] == [["doctor", "--no-gpu"]]
    assert [c["args"] for c in pod["spec"]["containers"]] == [["validate"]]
    assert "nvidia.com/gpu" not in json.dumps(pod)
    job = pod_of(only(example("first-run"), "Job"))
    assert env_of(pod["spec"]["containers"][0]) == env_of(job["containers"][0])


def test_the_validation_comes_before_the_release_and_takes_no_gpu() -> None:
    manifests = example("validated-first", 'validation.resources.limits.memory="8Gi"')
    hooks = {m["metadata"].get("annotations", {}).get("helm.sh/hook"): m for m in manifests}
    hook = hooks["pre-install,pre-upgrade"]
    container = pod_of(hook)["containers"][0]
    assert container["args"] == ["validate"]
    # Where the run will be, so a model out of reach is no warning.
    assert [c["args"] for c in pod_of(hook)["initContainers"]] == [["doctor", "--no-gpu"]]
    assert container["resources"]["limits"] == {"memory": "8Gi"}


def test_the_validation_outlasts_a_throttled_store_and_not_bad_data() -> None:
    """With the policy of the Job that trains, whose codes it ends with."""
    job, hook = sorted(
        all_of(example("validated-first"), "Job"),
        key=lambda m: "helm.sh/hook" in m["metadata"]["annotations"],
    )
    assert hook["spec"]["backoffLimit"] == 3
    told = json.dumps(job["spec"]["podFailurePolicy"])
    assert pod_of(hook)["containers"][0]["name"] == "validate"
    named = told.replace('"containerName": "job"', '"containerName": "validate"')
    assert json.loads(named) == hook["spec"]["podFailurePolicy"]
    assert pod_of(hook)["restartPolicy"] == "Never", "the policy needs it"


def _of_hooks(*sets: str, release: str) -> list[str]:
    """Helm deletes what has these names before it makes its own."""
    rendered = example("validated-first", "networkPolicy.enabled=true", *sets, release=release)
    hooks = [m for m in rendered if "helm.sh/hook" in m["metadata"].get("annotations", {})]
    assert {m["kind"] for m in hooks} == {"Job", "Pod", "NetworkPolicy"}
    return [m["metadata"]["name"] for m in hooks]


def test_two_releases_never_have_a_hook_of_the_same_name() -> None:
    long = "a" * 51
    entries = [{"name": name, "datasetUri": "s3://bucket/data/"} for name in ("weather", "a")]
    fleet = f"runs={json.dumps(entries)}"
    names = [
        *_of_hooks(fleet, release="team"),
        *_of_hooks(release="team-weather"),
        *_of_hooks('runId="run"', 'fullnameOverride="x"', release=f"{long}-b"),
        *_of_hooks('runId="run"', 'fullnameOverride="x"', release=f"{long}-c"),
    ]
    assert len(names) == len(set(names))
    assert _of_hooks("settings.seed=2", release="team-weather") == names[5:8], "of the next upgrade"
    assert all(re.fullmatch("[a-z0-9][-a-z0-9]{0,61}[a-z0-9]", name) for name in names)


def test_every_pod_without_a_gpu_goes_where_it_is_sent_and_no_other_does() -> None:
    """Where each node has a taint, it would stay Pending."""
    manifests = example("validated-elsewhere", 'runId="run"')
    made = [only(manifests, "Pod"), *all_of(manifests, "Job")]
    pods = {re.sub("-[0-9a-f]{8}-", "-", m["metadata"]["name"]): pod_of(m) for m in made}
    for workflow in all_of(manifests, "WorkflowTemplate"):
        pods |= {t["name"]: t for t in workflow["spec"]["templates"] if "container" in t}
    for name in ("train", "weather-run"):
        training = pods.pop(name)
        assert training["nodeSelector"] == {"pool": "gpus"}
        assert [t["key"] for t in training["tolerations"]] == ["nvidia.com/gpu", "spot"]
    steps = {"validate", "verdict", "plan", "summary"}
    assert pods.keys() == steps | {"weather-test", "weather-validate"}
    for pod in pods.values():
        assert pod["nodeSelector"] == {"pool": "cpus", "arch": "64"}
        assert [t["key"] for t in pod["tolerations"]] == ["tenant"]


def test_the_pods_that_validate_have_the_identity_of_the_one_that_trains() -> None:
    """They open the same bucket, and AKS gives an identity to labelled pods only."""
    manifests = example("validated-first", 'podLabels={"azure.workload.identity/use":"true"}')
    jobs = [m["spec"]["template"]["metadata"]["labels"] for m in manifests if m["kind"] == "Job"]
    assert len(jobs) == 2
    for labels in [*jobs, only(manifests, "Pod")["metadata"]["labels"]]:
        assert labels["azure.workload.identity/use"] == "true"
        assert labels["app.kubernetes.io/component"] in ("training", "validation")


def test_the_pod_monitor_finds_the_pods_and_keeps_the_run() -> None:
    manifests = example("monitoring")
    monitor = only(manifests, "PodMonitor")
    check(monitor)
    labels = only(manifests, "Job")["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["interval"] == "30s"
    [port] = pod_of(only(manifests, "Job"))["containers"][0]["ports"]
    assert (endpoint["port"], port["containerPort"]) == (port["name"], 9100)
    source = endpoint["relabelings"][0]["sourceLabels"][0]
    assert source == "__meta_kubernetes_pod_label_" + re.sub("[^a-z]", "_", "forge-job/run-id")


def test_the_alerts_are_prometheus_own_rules(tmp_path: Path) -> None:
    spec = only(example("monitoring"), "PrometheusRule")["spec"]
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(spec))
    checked = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_alert_on_jobs_comes_only_where_something_tells_of_them() -> None:
    def groups(*sets: str) -> dict[str, str]:
        spec = only(example("monitoring", *sets), "PrometheusRule")["spec"]
        return {group["name"]: group["rules"][0]["expr"] for group in spec["groups"]}

    assert set(groups("metrics.prometheusRule.kubeStateMetrics=false")) == {"forge-job"}
    assert set(groups()) == {"forge-job", "forge-job-jobs"}


def test_the_alerts_are_the_same_in_every_release() -> None:
    """Each judges the runs of all: a limit of one release's own would be wrong for the others."""
    short, long = (
        only(example("monitoring", f"terminationGracePeriodSeconds={s}"), "PrometheusRule")["spec"]
        for s in (15, 600)
    )
    assert short == long


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    spec = only(example("monitoring"), "PrometheusRule")["spec"]
    rules = [rule for group in spec["groups"] for rule in group["rules"]]
    for rule in rules:
        rule["annotations"] = {}  # for people: their text is not what is tested
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    cases = (ROOT / "tests" / "k8s" / "alerts_test.yaml").read_text()
    (tmp_path / "tests.yaml").write_text(cases.replace("RULES", "rules.yaml"))
    tested = run("promtool", "test", "rules", str(tmp_path / "tests.yaml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for rule in rules:
        assert f"alertname: {rule['alert']}\n" in cases


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    """A query of a metric that nobody exports is an alert that never fires."""
    metrics = Metrics(BuildInfo("1", "e", "p", "m"))
    known = {family.name for family in metrics.registry.collect()}
    known |= set(re.findall(r'^    \(\s*"(\w+)"', _collector_source(), re.MULTILINE))
    known |= {name.removeprefix("forge_") for name in known}
    texts = (CHART / "files" / "alerts.yaml").read_text(), _dashboard_queries()
    for name in {n for text in texts for n in re.findall(r"\bforge_(\w+)", text)}:
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert base in known, name


def _collector_source() -> str:
    from job.metrics import collector

    assert collector.__file__
    return Path(collector.__file__).read_text()


def _dashboard_queries() -> str:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    return "\n".join(t["expr"] for p in dashboard["panels"] for t in p["targets"])


def test_the_dashboard_is_what_the_sidecar_looks_for() -> None:
    found = [m for m in example("monitoring") if m["kind"] == "ConfigMap"]
    [config] = found
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(config["data"]["forge-job.json"])
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 10
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_dashboard_marks_where_each_attempt_began(tmp_path: Path) -> None:
    """An attempt is a pod, so a series of its own, which never changes."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    [annotation] = dashboard["annotations"]["list"]
    query = annotation["expr"].replace("$namespace", ".*").replace("$run_id", ".*")
    pods = {"a": "1x39 stale", "b": "_x44 2x80"}
    name = 'forge_attempt{{namespace="ml",pod="{}",run_id="r"}}'.format
    series = [{"series": name(pod), "values": values} for pod, values in pods.items()]
    marked = {"0s": ("a", 1), "5m": None, "10m30s": None, "11m": ("b", 2), "13m": None}
    tests = [
        {
            "expr": query,
            "eval_time": time,
            "exp_samples": [{"labels": name(found[0]), "value": found[1]}] if found else [],
        }
        for time, found in marked.items()
    ]
    case = {"interval": "15s", "input_series": series, "promql_expr_test": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"tests": [case]}))
    tested = run("promtool", "test", "rules", str(tmp_path / "tests.yaml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_network_is_closed_but_for_the_named_ways() -> None:
    policy = named(example("network-policy"), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [p["port"] for p in policy["ingress"][0]["ports"]] == [9464]
    assert "monitoring" in json.dumps(policy["ingress"][0]["from"])
    dns, store = policy["egress"]
    ways = [(p["port"], p["protocol"]) for p in dns["ports"]]
    # Policies see a packet after the Service's port became its pod's: OpenShift's DNS has 5353.
    assert sorted(ways) == [(53, "TCP"), (53, "UDP"), (5353, "TCP"), (5353, "UDP")]
    assert store["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    assert [p["port"] for p in store["ports"]] == [443]
    labels = only(example("network-policy"), "Job")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://rgw:8080", 8080), ("https://s3.example.com", 443), ("http://s3.example.com", 80)],
)
def test_the_way_to_the_store_is_open(url: str, port: int) -> None:
    sets = ("networkPolicy.enabled=true", f's3.endpointUrl="{url}"')
    policy = named(example("first-run", *sets), "NetworkPolicy")["spec"]
    assert port in [p["port"] for p in policy["egress"][1]["ports"]]


def test_argos_executor_reaches_the_api_server() -> None:
    policy = named(example("network-policy-argo"), "NetworkPolicy")["spec"]
    assert [p["port"] for p in policy["egress"][1]["ports"]] == [443, 6443]


def test_other_objects_are_templates() -> None:
    manifests = example("extra-objects")
    config = only(manifests, "ConfigMap")
    assert config["metadata"]["name"] == "weather-note"
    assert config["data"]["run"] == only(manifests, "Job")["metadata"]["name"]


def test_the_notes_name_the_run_and_its_commands() -> None:
    values = f"--values={VALUES / 'first-run.yaml'}"
    shown = run("helm", "install", "weather", str(CHART), "-n=ml", values, "--dry-run=client")
    notes = shown.stdout.partition("NOTES:")[2]
    name = only(example("first-run"), "Job")["metadata"]["name"]
    assert f"kubectl -n ml logs -f job/{name}" in notes
    assert f"forge-job status s3://bucket/runs/{name} --watch" in notes
    assert f"aws s3 cp --recursive s3://bucket/runs/{name}/adapter/ adapter/" in notes
    assert "helm test weather -n ml --logs" in notes
