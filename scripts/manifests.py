"""Writes k8s/ from the chart (`make manifests`): plain files, a kustomization a profile, Argo.

With `--check` nothing is written, and the exit status is 1 where a file is stale.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from job.profiles import PROFILES

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "helm"
K8S: Final = ROOT / "k8s"

_MADE: Final = "# Rendered from helm/ by `make manifests`."
_SECRET: Final = "forge-job-s3"  # noqa: S105 (the name of a Secret)
_HELMS_OWN: Final = ("helm.sh/chart", "app.kubernetes.io/managed-by")
_PLAIN: Final = f"""{_MADE} Fill in the three values marked with <...>, make
# the Secret {_SECRET} (docs/kubernetes.md), and `kubectl apply -f` this file.
# The same file started again resumes the run, or exits 0 at once where it is finished.
"""
_DISTRIBUTED: Final = f"""{_MADE} Two nodes with four cards each
# (docs/distributed.md). Fill in what is marked with <...>, and make the Secret {_SECRET}.
"""
_KINDS: Final = {"jobset": ("JobSet",), "trainjob": ("TrainingRuntime", "TrainJob")}
"""What `distributed.kind` renders, in the order in which it has to be applied."""
_PROFILE: Final = f"{_MADE} The values come from run.yaml: `kubectl apply -k` the folder.\n"
_ARGO: Final = f"""{_MADE} Fill in the image, and make the Secret
# {_SECRET}; docs/kubernetes.md shows how, and how it is submitted.
"""
_MANY: Final = f"""{_MADE} It needs workflowtemplate.yaml beside it. Fill in
# the image, and make the Secret {_SECRET}; docs/fleets.md shows how it is submitted.
"""
_FLEET: Final = f"""{_MADE} The Jobs of helm/examples/fleet.yaml, a run each.
# Fill in the image, and make the Secret {_SECRET} (docs/kubernetes.md) and, where there is Kueue,
# the queues (k8s/kueue/fleet.yaml).
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are fresh")
    check = parser.parse_args(argv).check
    stale = 0
    for path, text in _files():
        if path.exists() and path.read_text() == text:
            continue
        stale = 1
        if check:
            print(f"{path.relative_to(ROOT)} is stale; run make manifests", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return stale if check else 0


def _files() -> Iterator[tuple[Path, str]]:
    for profile in PROFILES:
        run = f"{profile.replace('_', '-')}-1"
        yield K8S / "plain" / f"{profile}.yaml", _PLAIN + _job(profile, run, "<", ">")
        yield K8S / "profiles" / profile / "job.yaml", _PROFILE + _job(profile, run, "", "")
    for kind in _KINDS:
        yield K8S / "distributed" / f"{kind}.yaml", _DISTRIBUTED + _distributed(kind)
    yield K8S / "argo" / "workflowtemplate.yaml", _ARGO + _workflow_template("WorkflowTemplate")
    cluster = _ARGO + _workflow_template("ClusterWorkflowTemplate")
    yield K8S / "argo" / "clusterworkflowtemplate.yaml", cluster
    for form in ("sweep", "fleet"):
        many = _MANY + _workflow_template("WorkflowTemplate", f"forge-job-{form}")
        yield K8S / "argo" / f"{form}.yaml", many
    yield K8S / "fleet" / "jobs.yaml", _FLEET + _fleet()


def _job(profile: str, run: str, left: str, right: str) -> str:
    """The Job of a profile, with the three values between `left` and `right`."""
    values = {
        "profile": profile,
        "runId": f"forge-job-{run}",
        "datasetUri": f"s3://{left}bucket{right}/data/",
        "outputUri": f"s3://{left}bucket{right}/runs",
        "image": {"repository": f"{left}registry{right}/forge-job"},
        "credentials": {"existingSecret": _SECRET},
        "job": {"keep": False},
    }
    return _text(*_rendered([f"values-{profile}.yaml"], values, "Job"))


def _fleet() -> str:
    """The Jobs of the example, with a placeholder for the registry."""
    values = {"image": {"repository": "<registry>/forge-job"}, "job": {"keep": False}}
    return _text(*_rendered(["examples/fleet.yaml"], values, "Job"))


def _distributed(kind: str) -> str:
    values = {
        "runId": "forge-job-distributed-1",
        "datasetUri": "s3://<bucket>/data/",
        "outputUri": "s3://<bucket>/runs",
        "image": {"repository": "<registry>/forge-job"},
        "credentials": {"existingSecret": _SECRET},
        "gpu": {"count": 4},
        "distributed": {"kind": kind, "nodes": 2},
        "job": {"keep": False},
    }
    found = (_rendered(["values-balanced.yaml"], values, one) for one in _KINDS[kind])
    manifests = [manifest for manifests in found for manifest in manifests]
    if kind == "trainjob":
        runtime, train_job = manifests
        _under_one_name(runtime, train_job)
    return _text(*manifests)


def _under_one_name(runtime: dict[str, Any], train_job: dict[str, Any]) -> None:
    """The chart's hash of the runtime's spec would be wrong once the file is filled in."""
    runtime["metadata"]["name"] = train_job["metadata"]["name"]
    train_job["spec"]["runtimeRef"]["name"] = train_job["metadata"]["name"]


def _workflow_template(kind: str, name: str = "forge-job") -> str:
    values = {
        "outputUri": "s3://bucket/runs",
        "datasetUri": "s3://bucket/data/",
        "image": {"repository": "<registry>/forge-job"},
        "credentials": {"existingSecret": _SECRET},
        "argo": {"enabled": True, "kind": kind, "serviceAccountName": "argo-workflow"},
        "job": {"enabled": False},
    }
    found = _rendered(["values-balanced.yaml"], values, kind)
    return _text(*(manifest for manifest in found if manifest["metadata"]["name"] == name))


def _rendered(files: Sequence[str], values: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What the chart makes of these values, and of files of it below them."""
    command = [_helm(), "template", "forge-job", str(CHART)]
    command += [*(f"--values={CHART / name}" for name in files), "--values=-"]
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found = [m for m in yaml.safe_load_all(done.stdout) if m and m["kind"] == kind]
    for manifest in found:
        _without_helm(manifest["metadata"])
        _without_image_name(manifest)
    return found


def _text(*manifests: dict[str, Any]) -> str:
    dumped = (yaml.dump(m, Dumper=_Indented, sort_keys=False, width=100) for m in manifests)
    return "---\n".join(dumped)


class _Indented(yaml.SafeDumper):
    """Lists further in than their key, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _without_helm(metadata: dict[str, Any]) -> None:
    """Whoever applies a file by hand has no release."""
    metadata.pop("namespace", None)
    metadata.pop("annotations", None)
    for label in _HELMS_OWN:
        metadata["labels"].pop(label)


def _without_image_name(node: Any) -> None:
    """The image is filled in by hand, or by kustomize: the variable would go on naming another."""
    if isinstance(node, list):
        node[:] = [e for e in node if not (isinstance(e, dict) and e.get("name") == "FORGE_IMAGE")]
    for below in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        _without_image_name(below)


def _helm() -> str:
    beside = Path(sys.executable).parent / "helm"
    found = str(beside) if beside.exists() else shutil.which("helm")
    if found is None:
        raise SystemExit("there is no helm: scripts/cluster_tools.py gets it")
    return found


if __name__ == "__main__":
    sys.exit(main())
