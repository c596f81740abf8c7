"""Custom resources against the models that their projects' clients are made of."""

from __future__ import annotations

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
    model = MODELS[manifest["kind"]].model_validate(manifest)
    kept = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
    assert not list(_lost(manifest, kept, "")), "unknown fields"


def _lost(given: Any, kept: Any, path: str) -> list[str]:
    if isinstance(given, dict):
        lost = [f"{path}.{key}" for key in given if key not in kept]
        inner = (_lost(v, kept[k], f"{path}.{k}") for k, v in given.items() if k in kept)
        return [*lost, *(name for names in inner for name in names)]
    if isinstance(given, list):
        pairs = enumerate(zip(given, kept, strict=True))
        return [n for i, (g, k) in pairs for n in _lost(g, k, f"{path}[{i}]")]
    return []
