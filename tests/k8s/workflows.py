"""The Argo templates of a release, and what Argo would put into them."""

from __future__ import annotations

import re
from typing import Any

from tests.k8s.chart import Manifest, example

Templates = dict[str, Manifest]
HOOK = 'argo.promote={"templateRef":"promote-adapter","template":"main"}'
_HOOK_TAKES = [{"name": "run-uri"}, {"name": "adapter-uri"}]


def template_of(workflow: Manifest, name: str) -> Manifest:
    found: Manifest = next(t for t in workflow["spec"]["templates"] if t["name"] == name)
    return found


def tasks_of(template: Manifest) -> dict[str, Manifest]:
    return {task["name"]: task for task in template["dag"]["tasks"]}


def of_many(form: str, values: str = "argo", *sets: str) -> tuple[Manifest, Templates]:
    """The WorkflowTemplate of a sweep or a fleet, and every template by name, those of the ones it
    refers to too."""
    found = {m["metadata"]["name"]: m for m in example(values, *sets)}
    templates = {f"weather/{t['name']}": t for t in found["weather"]["spec"]["templates"]}
    templates["promote-adapter/main"] = {"inputs": {"parameters": _HOOK_TAKES}}
    own = found[f"weather-{form}"]
    return own, templates | {t["name"]: t for t in own["spec"]["templates"]}


def filled(text: str, inputs: dict[str, str], **others: str) -> str:
    """As Argo fills them in; the two expressions that the templates have are known here."""
    fallback = (
        "{{=inputs.parameters['run-id'] == '' ? workflow.name : inputs.parameters['run-id']}}"
    )
    text = text.replace(fallback, inputs.get("run-id") or "workflow-7x2kq")
    trimmed = "{{=trimSuffix(inputs.parameters['output-uri'], '/')}}"
    text = text.replace(trimmed, inputs.get("output-uri", "").removesuffix("/"))
    known = {f"inputs.parameters.{name}": value for name, value in inputs.items()} | others
    return re.sub(r"\{\{([\w.-]+)\}\}", lambda match: known[match[1]], text)


def made_of_inputs(step: Manifest, inputs: dict[str, str]) -> dict[str, Any]:
    """A step's outputs that no file holds."""
    outputs = step["outputs"]["parameters"]
    return {p["name"]: filled(p["value"], inputs) for p in outputs if "value" in p}
