"""Custom resources against the models that their projects' clients are made of."""

from __future__ import annotations

import copy
import json
from typing import Any

from cloudcoil.models.prometheus_operator.v1 import PodMonitor
from hera.workflows import models as argo
from kubeflow_trainer_api import models as kubeflow  # type: ignore[import-untyped]

from tests.k8s.chart import Manifest

MODELS: dict[str, Any] = {
    "PodMonitor": PodMonitor,
    "WorkflowTemplate": argo.WorkflowTemplate,
    "ClusterWorkflowTemplate": argo.ClusterWorkflowTemplate,
    "CronWorkflow": argo.CronWorkflow,
    "JobSet": kubeflow.JobsetV1alpha2JobSet,
    "TrainJob": kubeflow.TrainerV1alpha1TrainJob,
    "TrainingRuntime": kubeflow.TrainerV1alpha1TrainingRuntime,
}


def check(manifest: Manifest) -> None:
    """Raises where a value has the wrong type, or a field is one that the project doesn't know."""
    model = MODELS[manifest["kind"]]
    if model.__module__.startswith(kubeflow.__name__):
        manifest = _without_pods(manifest)
    found = model.model_validate(manifest)
    kept = json.loads(found.model_dump_json(by_alias=True, exclude_none=True))
    assert not list(_lost(manifest, kept, "")), "unknown fields"


def _without_pods(manifest: Manifest) -> Manifest:
    """Kubeflow's models take no number for a port and no text for a size. What is inside a Job is
    held against the API itself by test_chart_matrix."""
    left = copy.deepcopy(manifest)
    spec = left["spec"].get("template", left)["spec"]
    for replicated in spec.get("replicatedJobs", ()):
        job = replicated["template"]["spec"]
        names = [{"name": container["name"]} for container in job["template"]["spec"]["containers"]]
        job["template"]["spec"] = {"containers": names}
    return left


def _lost(given: Any, kept: Any, path: str) -> list[str]:
    if isinstance(given, dict):
        lost = [f"{path}.{key}" for key in given if key not in kept]
        inner = (_lost(v, kept[k], f"{path}.{k}") for k, v in given.items() if k in kept)
        return [*lost, *(name for names in inner for name in names)]
    if isinstance(given, list):
        pairs = enumerate(zip(given, kept, strict=True))
        return [n for i, (g, k) in pairs for n in _lost(g, k, f"{path}[{i}]")]
    return []
