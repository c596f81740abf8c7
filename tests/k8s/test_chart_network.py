"""Whom the network policy lets through, and what stays of a release for a Job that goes on."""

from __future__ import annotations

import ipaddress
import json
from itertools import product
from typing import Any

import pytest

from tests.k8s.chart import Manifest, example, only

V4 = ("0.0.0.0/0", "10.0.0.0/8", "10.20.0.0/16", "10.20.0.0/17", "10.20.128.0/17", "10.21.0.0/16",
      "169.254.0.0/16", "169.254.169.254/32", "160.0.0.0/3")  # fmt: skip
V6 = ("::/0", "fd00::/8", "fd00:ec2::254/128", "fd00:ec2::/32", "a000::/3", "::1/128",
      "2001:db8:0:1::/64", "2001:db8::/33", "2001:DB8:0:1:2:3:4:5/128")  # fmt: skip


def _policy(*sets: str) -> Manifest:
    spec: Manifest = only(example("network-policy", *sets), "NetworkPolicy")["spec"]
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
    selected = only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    scraped = only(manifests, "PodMonitor")["spec"]["selector"]["matchLabels"]
    workflows = [m for m in manifests if m["kind"] == "WorkflowTemplate"]
    steps = {t["name"]: t for m in workflows for t in m["spec"]["templates"] if "container" in t}
    assert set(steps) == {"validate", "train", "verdict", "plan", "summary"}
    for name, step in steps.items():
        labels = step["metadata"]["labels"]
        assert selected.items() <= labels.items(), name
        assert (scraped.items() <= labels.items()) is (name == "train"), name


# -- what an uninstall leaves --------------------------------------------------------------------


def _kept(*sets: str) -> dict[str, Any]:
    made = ("serviceAccount.create=true", "networkPolicy.enabled=true")
    identity = ("credentials.existingSecret=null", "credentials.workloadIdentity=true")
    return {
        m["kind"]: m["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
        for m in example("first-run", *made, *identity, *sets)
        if m["kind"] != "Pod"
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
