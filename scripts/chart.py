"""Writes what follows from helm/values.yaml and the settings: the schema and the chart's README.

With `--check` nothing is written, and the exit status is 1 where a file is stale.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from job.config import Settings
from job.families import FAMILIES
from job.profiles import PROFILES

CHART: Final = Path(__file__).resolve().parent.parent / "helm"

OWN_VALUES: Final = {
    "run_id": "runId",
    "dataset_uri": "datasetUri",
    "output_uri": "outputUri",
    "profile": "profile",
    "model_family": "modelFamily",
    "model": "model",
    "grace_seconds": "terminationGracePeriodSeconds",
    "metrics_port": "metrics.port",
    "work_dir": "scratch.mountPath",
    "image": "image",
}
"""Settings that are values of their own; every other one goes below `settings`."""

_STRINGS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_OBJECTS: Final = {"type": "array", "items": {"type": "object"}}
_QUANTITIES: Final = {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
_CIDR: Final = {"type": "string", "pattern": "^([0-9.]+|[0-9a-fA-F:]+)/[0-9]{1,3}$"}
_AS_TEXT: Final = {"type": "string", "pattern": r"^-?[0-9]*\.?[0-9]+([eE][+-]?[0-9]+)?$"}
"""`--set` hands fractions over as text."""

_OF_A_RUN: Final = (
    "runId",
    "datasetUri",
    "outputUri",
    "profile",
    "modelFamily",
    "model",
    "settings",
    "gpu",
    "resources",
    "scratch",
    "kueue",
)
"""Values that an entry of `runs` may have of its own."""
_RUN: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30},
        **{value: {"$ref": f"#/properties/{value}"} for value in _OF_A_RUN},
    },
}

_RULES: Final[Mapping[str, dict[str, Any]]] = {
    "profile": {"enum": list(PROFILES)},
    "runs": {"items": _RUN},
    "modelFamily": {"enum": list(FAMILIES)},
    "datasetUri": {"type": ["string", "array"], "items": {"type": "string"}},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "image.digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.tag": {"type": "string"},
    "image.repository": {"minLength": 1},
    "gpu.count": {"minimum": 1},
    "gpu.resource": {"minLength": 1},
    "distributed.kind": {"enum": ["none", "jobset", "trainjob"]},
    "distributed.nodes": {"minimum": 1},
    "distributed.port": {"minimum": 1024, "maximum": 65535},
    "terminationGracePeriodSeconds": {"minimum": 0},
    "metrics.port": {"minimum": 1024, "maximum": 65535},
    "job.command": {"enum": ["run", "doctor"]},
    "job.backoffLimit": {"minimum": 0},
    "job.activeDeadlineSeconds": {"minimum": 0},
    "job.ttlSecondsAfterFinished": {"minimum": 0},
    "scratch.mountPath": {"pattern": "^/."},
    "podSecurityContext.runAsUser": {"minimum": 1},
    "podSecurityContext.fsGroup": {"minimum": 0},
    "resources.requests": _QUANTITIES,
    "resources.limits": _QUANTITIES,
    "validation.resources.requests": _QUANTITIES,
    "validation.resources.limits": _QUANTITIES,
    "networkPolicy.egressCidrs": {"items": _CIDR, "minItems": 1},
    "networkPolicy.egressExcept": {"items": _CIDR},
    "networkPolicy.egressPorts": {"items": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "argo.kind": {"enum": ["WorkflowTemplate", "ClusterWorkflowTemplate"]},
    "argo.retryLimit": {"minimum": 0},
    "argo.parallelism": {"minimum": 1},
    **dict.fromkeys(
        (
            "serviceAccount.annotations",
            "job.annotations",
            "podAnnotations",
            "podLabels",
            "commonLabels",
            "nodeSelector",
            "validation.nodeSelector",
            "metrics.podMonitor.labels",
            "metrics.prometheusRule.labels",
            "metrics.dashboard.labels",
        ),
        _STRINGS,
    ),
}
"""What a value's type doesn't say."""


@dataclass(frozen=True)
class Value:
    """A line of values.yaml with a `# --` comment."""

    path: str
    default: Any
    meaning: str


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether they are fresh")
    check = parser.parse_args(argv).check
    stale = [path for path, text in _files() if not path.exists() or path.read_text() != text]
    if not check:
        for path, text in _files():
            path.write_text(text)
        return 0
    for path in stale:
        print(f"{path} is stale; run scripts/chart.py", file=sys.stderr)
    return 1 if stale else 0


def _files() -> Iterator[tuple[Path, str]]:
    yield CHART / "values.schema.json", json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    readme = CHART / "README.md"
    head, _, rest = readme.read_text().partition("<!-- values:begin -->")
    tail = rest.partition("<!-- values:end -->")[2]
    yield readme, f"{head}<!-- values:begin -->\n{values_table()}\n<!-- values:end -->{tail}"


def values() -> list[Value]:
    """Every documented value, in the file's order."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    found, parents, meaning = [], list[str](), ""
    for line in text.splitlines():
        if comment := re.match(r"\s*# -- (.*)", line):
            meaning = comment[1]
        elif key := re.match(r"( *)([A-Za-z]\w*):", line):
            parents = [*parents[: len(key[1]) // 2], key[2]]
            if meaning:
                found.append(Value(".".join(parents), _at(defaults, parents), meaning))
                meaning = ""
    return found


def values_table() -> str:
    """The values as Markdown."""
    rows = ("| Value | Default | Meaning |", "| --- | --- | --- |")
    lines = (f"| `{v.path}` | `{json.dumps(v.default)}` | {v.meaning} |" for v in values())
    return "\n".join((*rows, *lines))


def schema() -> dict[str, Any]:
    """The schema of the values: nothing unknown, nothing of the wrong type."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    meanings = {value.path: value.meaning for value in values()}
    top = _schema_of("", defaults, meanings)
    top["properties"]["settings"] = settings_schema()
    top["properties"]["global"] = {"type": "object", "description": "Helm's own"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **top}


def settings_schema() -> dict[str, Any]:
    """Every setting that has no value of its own, by its name in camel case."""
    fields = Settings.model_json_schema()["properties"]
    properties = {
        camel_case(name): _setting(field)
        for name, field in fields.items()
        if name not in OWN_VALUES
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def camel_case(name: str) -> str:
    """`lora_r` → `loraR`"""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _setting(field: Mapping[str, Any]) -> dict[str, Any]:
    found = next((o for o in field.get("anyOf", ()) if o["type"] != "null"), field)
    rules = {k: v for k, v in found.items() if k not in ("default", "title", "format")}
    rules |= {"description": field["description"]}
    if rules["type"] == "number":
        return {"description": rules.pop("description"), "anyOf": [rules, _AS_TEXT]}
    if rules["type"] == "array":
        rules["type"] = ["array", "string"]
    return rules


def _schema_of(path: str, default: Any, meanings: Mapping[str, str]) -> dict[str, Any]:
    found = _type_of(path, default, meanings)
    if path in meanings:
        found["description"] = meanings[path]
    return found | _RULES.get(path, {})


def _type_of(path: str, default: Any, meanings: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(default, dict) and default and path not in _RULES:
        inner = {
            key: _schema_of(f"{path}.{key}".removeprefix("."), value, meanings)
            for key, value in default.items()
        }
        return {"type": "object", "additionalProperties": False, "properties": inner}
    if isinstance(default, list) and path not in _RULES:
        return dict(_OBJECTS)
    names = {dict: "object", list: "array", bool: "boolean", int: "integer", str: "string"}
    return {"type": names[type(default)]}


def _at(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


if __name__ == "__main__":
    sys.exit(main())
