"""Every set of values in tests/k8s/values renders to what an API server takes; every one in
tests/k8s/refused is refused with the sentence in its first line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from job.config import load_settings
from tests.k8s.chart import (
    CHART,
    REFUSED,
    VALUES,
    Manifest,
    env_of,
    jobs_of,
    only,
    pod_of,
    pods_of,
    render,
    run,
    template,
)
from tests.k8s.custom import MODELS, check

GOOD = sorted([*VALUES.glob("*.yaml"), *(CHART / "examples").glob("*.yaml")])
BAD = sorted(REFUSED.glob("*.yaml"))
VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
CUSTOM = (*MODELS, "PrometheusRule")
WHERE = {"names-like-numbers": {"release": "2026", "namespace": "12e4"}}
"""Where a set of values isn't installed as the others are."""


def _named(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module", params=GOOD, ids=_named)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param, **WHERE.get(request.param.stem, {}))


def test_there_are_enough_of_them() -> None:
    assert len(GOOD) >= 25
    assert len(BAD) >= 25


def test_every_version_of_the_api_takes_them(manifests: list[Manifest]) -> None:
    core = [m for m in manifests if m["kind"] not in CUSTOM]
    operators = [job for job in jobs_of(manifests) if job not in core]
    for manifest in [*core, *operators]:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_operator_knows_their_fields(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] in MODELS:
            check(manifest)


def test_their_environments_are_settings(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for pod in pods_of(manifests):
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            with monkeypatch.context() as patched:
                for name, value in env_of(container).items():
                    patched.setenv(name, value)
                load_settings()


def test_their_names_fit(manifests: list[Manifest]) -> None:
    for manifest in [*manifests, *jobs_of(manifests)]:
        limit = 52 if manifest["kind"] == "Job" else 63
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", manifest["metadata"]["name"])
        assert len(manifest["metadata"]["name"]) <= limit


def test_their_labels_and_annotations_are_text(manifests: list[Manifest]) -> None:
    """What YAML takes for a number or a truth value if nobody quotes it, the API refuses. The
    models of custom resources have no word on labels."""
    for manifest in [*manifests, *jobs_of(manifests)]:
        for metadata in _metadata(manifest):
            found = [v for of in ("labels", "annotations") for v in metadata.get(of, {}).values()]
            found += [metadata[name] for name in ("name", "namespace") if name in metadata]
            assert [value for value in found if not isinstance(value, str)] == []


def _metadata(tree: Any) -> Iterator[Manifest]:
    """Of an object, and of all the pods and Jobs in it."""
    if isinstance(tree, dict) and isinstance(tree.get("metadata"), dict):
        yield tree["metadata"]
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for value in inner:
        yield from _metadata(value)


def test_their_pods_meet_the_restricted_standard(manifests: list[Manifest]) -> None:
    """Pod Security Standards, level `restricted`, and what else the contract asks for."""
    for pod in pods_of(manifests):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"].get("runAsUser", 10001) > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["restartPolicy"] == "Never"
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_a_real_api_server_would_take_the_job(manifests: list[Manifest]) -> None:
    """What an API server checks and schemas don't."""
    jobs = [job for job in jobs_of(manifests) if "podFailurePolicy" in job["spec"]]
    for job in jobs:
        spec, pod = job["spec"], pod_of(job)
        assert spec["podReplacementPolicy"] == "Failed"
        assert "suspend" not in spec, "Kueue owns it"
        names = {container["name"] for container in pod["containers"]}
        for rule in spec["podFailurePolicy"]["rules"]:
            if codes := rule.get("onExitCodes"):
                assert codes["containerName"] in names
                assert codes["values"] == sorted(set(codes["values"]))
                assert 0 not in codes["values"]
            for condition in rule.get("onPodConditions", ()):
                assert condition["status"] == "True"
        resources = pod["containers"][0]["resources"]
        extended = {k for k in resources.get("limits", ()) if "/" in k}
        for name in extended:
            assert resources["limits"][name] == resources["requests"][name]
            assert int(resources["limits"][name]) >= 1
        mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
        assert len(mounts) == len(set(mounts))
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {m["name"] for m in pod["containers"][0]["volumeMounts"]} <= volumes
        env = [variable["name"] for variable in pod["containers"][0]["env"]]
        assert len(env) == len(set(env))


@pytest.mark.parametrize("path", GOOD, ids=_named)
def test_lint_finds_nothing(path: Path) -> None:
    linted = run("helm", "lint", "--strict", str(CHART), f"--values={path}")
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("path", BAD, ids=_named)
def test_it_is_refused_with_one_clear_sentence(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# ")
    refused = template(path)
    assert refused.returncode != 0
    assert expected in refused.stderr
    assert refused.stderr.count("\n- ") == 1


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"runId": "Bad_Id", "datasetUri": "ftp://x", "model": "/m"}))
    problems = template(values).stderr
    for value in ("runId:", "datasetUri:", "outputUri:", "model:"):
        assert f"\n- {value}" in problems


def test_a_release_whose_name_has_a_dot_is_told_what_to_set() -> None:
    values = VALUES / "first-run.yaml"
    assert "the release's name my.release begins" in template(values, release="my.release").stderr
    for way in ("fullnameOverride=my-release", "runId=mine"):  # a Job's own name may have dots
        done = template(values, release="my.release", options=(f"--set={way}",))
        assert done.returncode == 0, done.stderr


def test_a_first_run_takes_five_lines() -> None:
    lines = (VALUES / "first-run.yaml").read_text().splitlines()
    assert len(lines) == 5
    assert only(render(VALUES / "first-run.yaml"), "Job")
