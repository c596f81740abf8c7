"""The real `helm` and `kubectl`, and what they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm"
VALUES = ROOT / "tests" / "k8s" / "values"
REFUSED = ROOT / "tests" / "k8s" / "refused"

Manifest = dict[str, Any]


def tool(name: str) -> str:
    """Where a program is that scripts/cluster_tools.py or scripts/system_packages.sh gets."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        reason = (
            f"there is no {name}: scripts/cluster_tools.py or scripts/system_packages.sh gets it"
        )
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool(command[0]), *command[1:]], capture_output=True, text=True, check=False, cwd=ROOT
    )


def template(
    *values: Path, release: str = "weather", namespace: str = "ml", options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    files = (f"--values={path}" for path in values)
    return run("helm", "template", release, str(CHART), f"-n={namespace}", *files, *options)


class AsGoReadsIt(yaml.SafeLoader):
    """To helm and kubectl `12e4` is a number, without any dot."""


AsGoReadsIt.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def render(*values: Path, **where: Any) -> list[Manifest]:
    """The manifests of a release with these values."""
    rendered = template(*values, **where)
    assert rendered.returncode == 0, rendered.stderr
    loaded = yaml.load_all(rendered.stdout, AsGoReadsIt)
    return [manifest for manifest in loaded if manifest]


def example(name: str, *sets: str, options: tuple[str, ...] = (), **where: Any) -> list[Manifest]:
    """The same with a file of tests/k8s/values, and `key=value` in JSON on top."""
    options = (*options, *(f"--set-json={pair}" for pair in sets))
    return render(VALUES / f"{name}.yaml", options=options, **where)


def all_of(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Every manifest of this kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def named(manifests: list[Manifest], kind: str, name: str = "weather") -> Manifest:
    """The one of this kind and name, which by default is the release's."""
    [found] = [m for m in all_of(manifests, kind) if m["metadata"]["name"] == name]
    return found


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """The one manifest of this kind."""
    [found] = all_of(manifests, kind)
    return found


def jobs_of(manifests: list[Manifest]) -> list[Manifest]:
    """Every Job, those too that an operator makes of a JobSet or a TrainingRuntime."""
    found = []
    used_by = {
        m["spec"]["runtimeRef"]["name"]: m["metadata"]["name"]
        for m in manifests
        if m["kind"] == "TrainJob"
    }
    for manifest in manifests:
        if manifest["kind"] == "Job":
            found.append(manifest)
            continue
        spec = manifest.get("spec", {})
        if manifest["kind"] == "TrainingRuntime":
            spec = spec["template"]["spec"]
        if manifest["kind"] in ("JobSet", "TrainingRuntime"):
            for replicated in spec["replicatedJobs"]:
                owner = manifest["metadata"]["name"]
                name = f"{used_by.get(owner, owner)}-{replicated['name']}-0"
                job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
                found.append(job | {"spec": replicated["template"]["spec"]})
    return found


def pods_of(manifests: list[Manifest]) -> list[Manifest]:
    """The pod's spec of every Job, as above, and of every Pod."""
    pods = [manifest for manifest in manifests if manifest["kind"] == "Pod"]
    return [pod_of(manifest) for manifest in [*jobs_of(manifests), *pods]]


def pod_of(manifest: Manifest) -> Manifest:
    """The pod's spec of a Job or Pod."""
    spec: Manifest = manifest["spec"]
    inner: Manifest = spec["template"]["spec"] if manifest["kind"] == "Job" else spec
    return inner


def env_of(container: Manifest) -> dict[str, str]:
    return {v["name"]: v["value"] for v in container["env"] if "value" in v}
