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
_ARGO: Final = f"""{_MADE} Fill in the image; docs/kubernetes.md shows how
# it is submitted.
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
    return _rendered(profile, values, "Job")


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
    return "---\n".join(_rendered("balanced", values, one) for one in _KINDS[kind])


def _workflow_template(kind: str) -> str:
    values = {
        "outputUri": "s3://bucket/runs",
        "datasetUri": "s3://bucket/data/",
        "image": {"repository": "<registry>/forge-job"},
        "credentials": {"existingSecret": _SECRET},
        "argo": {"enabled": True, "kind": kind, "serviceAccountName": "argo-workflow"},
        "job": {"enabled": False},
    }
    return _rendered("balanced", values, kind)


def _rendered(profile: str, values: dict[str, Any], kind: str) -> str:
    command = [_helm(), "template", "forge-job", str(CHART), "--values=-"]
    command.append(f"--values={CHART / f'values-{profile}.yaml'}")
    done = subprocess.run(
        command, input=json.dumps(values), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    [found] = [m for m in yaml.safe_load_all(done.stdout) if m and m["kind"] == kind]
    _without_helm(found["metadata"])
    _without_image_name(found)
    return yaml.dump(found, Dumper=_Indented, sort_keys=False, width=100)


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
