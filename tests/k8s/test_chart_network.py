"""Whom the network policy lets through, and what stays of a release for a Job that goes on."""

from __future__ import annotations

import ipaddress
import json
from itertools import product
from typing import Any

import pytest

from tests.k8s.chart import Manifest, all_of, example, jobs_of, named, only, pod_of

V4 = ("0.0.0.0/0", "10.0.0.0/8", "10.20.0.0/16", "10.20.0.0/17", "10.20.128.0/17", "10.21.0.0/16",
      "169.254.0.0/16", "169.254.169.254/32", "160.0.0.0/3")  # fmt: skip
V6 = ("::/0", "fd00::/8", "fd00:ec2::254/128", "fd00:ec2::/32", "a000::/3", "::1/128",
      "2001:db8:0:1::/64", "2001:db8::/33", "2001:DB8:0:1:2:3:4:5/128")  # fmt: skip


def _policy(*sets: str) -> Manifest:
    spec: Manifest = named(example("network-policy", *sets), "NetworkPolicy")["spec"]
    return spec


def test_an_exception_is_a_part_of_the_network_that_it_is_taken_from() -> None:
    """The API server refuses any other, and nothing outside of the network was open anyway."""
    networks = [*V4, *V6]
    listed = (
        f"networkPolicy.{name}={json.dumps(networks)}" for name in ("egressCidrs", "egressExcept")
    )
    blocks = [to["ipBlock"] for to in _policy(*listed)["egress"][1]["to"]]
    assert [block["cidr"] for block in blocks] == networks
    found = {(b["cidr"], inner) for b in blocks for inner in b.get("except", ())}
    assert found == {pair for pair in product(networks, networks) if _is_part(*reversed(pair))}


def _is_part(inner: str, outer: str) -> bool:
    one, other = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    return one != other and one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def test_the_metadata_service_is_closed_where_it_would_be_open() -> None:
    [everything] = _policy()["egress"][1]["to"]
    assert everything["ipBlock"] == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}
    [inside] = _policy('networkPolicy.egressCidrs=["10.20.0.0/16"]')["egress"][1]["to"]
    assert inside["ipBlock"] == {"cidr": "10.20.0.0/16"}


def _ports(*sets: str) -> list[int]:
    return [port["port"] for port in _policy(*sets)["egress"][1]["ports"]]


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://pg:9091", 9091),
        ("http://pg.monitoring.svc", 80),
        ("https://pg.example.com/prefix", 443),
        ("http://user:p%40ss@pg:9091/prefix", 9091),
        ("http://[fd00::1]:9091", 9091),
        ("http://[fd00::1]", 80),
        ("http://pg:9091?query=a/b:1", 9091),
    ],
)
def test_the_way_to_the_pushgateway_is_open(url: str, port: int) -> None:
    assert set(_ports(f'settings.pushgatewayUrl="{url}"')) == {443, port}


def test_so_are_those_to_what_other_variables_name_by_url() -> None:
    urls = {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "HTTPS_PROXY": "http://proxy:3128",
        "WANDB_BASE_URL": "https://wandb.example.com",
        "NO_URL": "db:5432",
    }
    given = json.dumps([{"name": name, "value": value} for name, value in urls.items()])
    secret = '[{"name":"A","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]'
    assert set(_ports(f"extraEnv={given}")) == {443, 5000, 3128}
    assert set(_ports(f"extraEnv={secret}")) == {443}


def test_the_policy_of_many_runs_opens_what_each_of_them_names() -> None:
    runs = [
        {"name": name, "settings": {"pushgatewayUrl": f"http://pg:{port}"}}
        for name, port in (("oslo", 9091), ("lima", 9092))
    ]
    assert set(_ports(f"runs={json.dumps(runs)}")) == {443, 9091, 9092}


def test_ports_that_no_value_shows_can_be_named() -> None:
    """Most networks judge a packet once a Service's port has become its pod's."""
    given = ('s3.endpointUrl="http://minio"', "networkPolicy.egressPorts=[9000,443]")
    assert _ports(*given) == [443, 80, 9000]


def test_every_pod_of_a_workflow_is_under_the_policy_and_only_one_is_scraped() -> None:
    manifests = example("network-policy-argo", "metrics.podMonitor.enabled=true")
    selected = named(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    scraped = only(manifests, "PodMonitor")["spec"]["selector"]["matchLabels"]
    workflows = [m for m in manifests if m["kind"] == "WorkflowTemplate"]
    steps = {t["name"]: t for m in workflows for t in m["spec"]["templates"] if "container" in t}
    assert set(steps) == {"validate", "train", "verdict", "plan", "summary"}
    for name, step in steps.items():
        labels = step["metadata"]["labels"]
        assert selected.items() <= labels.items(), name
        assert (scraped.items() <= labels.items()) is (name == "train"), name


# -- a run's own policy, and that of the pods that validate ---------------------------------------

OLD, NEW = ('s3.endpointUrl="http://minio:9000"',), ('s3.endpointUrl="http://rgw:8080"',)
ON = ("networkPolicy.enabled=true", "job.keep=true")
Policies = dict[str, Manifest]


def _policies(manifests: list[Manifest], hooks: bool = False) -> Policies:
    """Those of the release, or those of the hooks before it."""
    found = {m["metadata"]["name"]: m for m in all_of(manifests, "NetworkPolicy")}
    assert len(found) == len(all_of(manifests, "NetworkPolicy")), "two of one name"
    return {n: m for n, m in found.items() if hooks == ("helm.sh/hook" in _annotations(m))}


def _annotations(manifest: Manifest) -> dict[str, str]:
    return dict(manifest["metadata"].get("annotations", {}))


def _after_upgrade(before: Policies, after: Policies) -> Policies:
    """What a cluster holds then: Helm takes what is rendered no more, but for what is kept."""
    kept = {n: m for n, m in before.items() if "helm.sh/resource-policy" in _annotations(m)}
    return kept | after


def _rules(policies: Policies, labels: dict[str, str]) -> list[Manifest]:
    """Of every policy that selects such a pod; a packet goes where any of them lets it."""
    specs = [policy["spec"] for policy in policies.values()]
    chosen = [s for s in specs if s["podSelector"]["matchLabels"].items() <= labels.items()]
    return [rule for spec in chosen for rule in spec["egress"]]


def _reached(policies: Policies, labels: dict[str, str]) -> set[int]:
    """Ports of a store outside."""
    rules = [r for r in _rules(policies, labels) if "ipBlock" in r.get("to", [{}])[0]]
    return {port["port"] for rule in rules for port in rule["ports"]}


def _meets(policies: Policies, one: dict[str, str], other: dict[str, str]) -> bool:
    peers = [to["podSelector"] for rule in _rules(policies, one) for to in rule.get("to", ())
             if "podSelector" in to]  # fmt: skip
    return any(peer["matchLabels"].items() <= other.items() for peer in peers)


def _labels(manifests: list[Manifest]) -> dict[str, str]:
    """Of the pod that trains."""
    [job] = [j for j in jobs_of(manifests) if pod_of(j)["containers"][0]["args"] == ["run"]]
    return dict(job["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("kind", ["none", "jobset", "trainjob"])
def test_an_upgrade_leaves_a_running_run_its_way_to_the_store(kind: str) -> None:
    sets = (f'distributed.kind="{kind}"', *ON)
    before, after = example("first-run", *sets, *OLD), example("first-run", *sets, *NEW)
    running, next_one = _labels(before), _labels(after)
    assert running["forge-job/run-id"] != next_one["forge-job/run-id"]
    found = _after_upgrade(_policies(before), _policies(after))
    assert 9000 in _reached(found, running)
    assert _reached(found, next_one) == {443, 8080}, "and the next one has no more than its own"


def test_an_upgrade_leaves_the_pods_of_a_running_run_to_each_other() -> None:
    """Also the one to a run of a single pod; and strangers never meet."""
    before = example("first-run", 'distributed.kind="jobset"', *ON)
    after = example("first-run", *ON)
    running = _labels(before)
    found = _after_upgrade(_policies(before), _policies(after))
    assert _meets(found, running, running)
    assert not _meets(found, running, _labels(after))
    assert not _meets(found, _labels(after), _labels(after)), "one pod"


def test_a_policy_is_kept_where_its_job_is() -> None:
    before, after = (example("first-run", *ON, "job.keep=false", *sets) for sets in (OLD, NEW))
    assert _after_upgrade(_policies(before), _policies(after)) == _policies(after)
    left = _after_upgrade(_policies(example("first-run", *ON)), {})
    assert [name for name in left if not name.endswith("-run")] == []


def test_each_of_many_runs_has_its_own() -> None:
    manifests = example("fleet", *ON)
    jobs = {m["metadata"]["name"]: m for m in all_of(manifests, "Job") if not _annotations(m).get(
        "helm.sh/hook")}  # fmt: skip
    assert len(jobs) == 3
    assert _policies(manifests).keys() == {"weather"} | {f"{name}-run" for name in jobs}
    for name, job in jobs.items():
        own = named(manifests, "NetworkPolicy", f"{name}-run")["spec"]["podSelector"]["matchLabels"]
        assert own["forge-job/run-id"] == name
        assert own.items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_a_run_that_is_called_as_its_release_has_its_own_too() -> None:
    """As in the examples for CI."""
    assert set(_policies(example("first-run", *ON, 'runId="weather"'))) == {
        "weather",
        "weather-run",
    }


@pytest.mark.parametrize("installed", [True, False], ids=["upgrade", "install"])
def test_the_hook_reaches_the_store_before_the_release_is_there(installed: bool) -> None:
    """In a namespace that denies by default a pod reaches nothing without a policy."""
    before = _policies(example("validated-first", *ON, *OLD)) if installed else {}
    manifests = example("validated-first", *ON, *NEW)
    [hook] = [m for m in all_of(manifests, "Job") if "helm.sh/hook" in _annotations(m)]
    found = _policies(manifests, hooks=True)
    labels = hook["spec"]["template"]["metadata"]["labels"]
    assert 8080 in _reached(before | found, labels)
    for policy in found.values():
        told = _annotations(policy)
        assert int(told["helm.sh/hook-weight"]) < int(
            _annotations(hook).get("helm.sh/hook-weight", 0)
        )
        assert told["helm.sh/hook"] == _annotations(hook)["helm.sh/hook"]
        assert "hook-succeeded" in told["helm.sh/hook-delete-policy"]
    assert not _reached(found, _labels(manifests)), "of no other pod"


# -- what an uninstall leaves --------------------------------------------------------------------


def _kept(*sets: str) -> dict[str, Any]:
    made = ("serviceAccount.create=true", "networkPolicy.enabled=true")
    identity = ("credentials.existingSecret=null", "credentials.workloadIdentity=true")
    return {
        m["kind"]: m["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
        for m in example("first-run", *made, *identity, *sets)
        if m["kind"] != "Pod" and (m["kind"], m["metadata"]["name"]) != ("NetworkPolicy", "weather")
    }


@pytest.mark.parametrize("kind", ["none", "jobset", "trainjob"])
def test_what_the_next_pod_needs_stays_with_the_job(kind: str) -> None:
    kept = _kept(f'distributed.kind="{kind}"')
    kept.pop("TrainingRuntime", None)  # a hook's, which Helm forgets
    assert len(kept) == 3
    assert set(kept.values()) == {"keep"}


@pytest.mark.parametrize(
    "sets",
    [
        ("job.keep=false",),
        ("job.enabled=false", "argo.enabled=true"),
    ],
)
def test_without_such_a_job_nothing_stays(sets: tuple[str, ...]) -> None:
    assert set(_kept(*sets).values()) == {None}


def test_the_accounts_own_annotations_are_there_too() -> None:
    account = only(example("gke-identity"), "ServiceAccount")["metadata"]["annotations"]
    assert len(account) == 2
    assert account["helm.sh/resource-policy"] == "keep"
