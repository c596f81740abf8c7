"""The plain manifest agrees with the settings and the exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from job.config import load_settings
from job.errors import EXIT_CODES
from job.lifecycle import StopToken

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    manifest = yaml.safe_load((ROOT / "k8s" / "job.yaml").read_text(encoding="utf-8"))
    assert manifest["kind"] == "Job"
    assert len(manifest["metadata"]["name"]) <= 52
    return dict(manifest["spec"])


def test_its_environment_is_a_set_of_settings(
    spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = spec["template"]["spec"]
    for variable in pod["containers"][0]["env"]:
        value = variable["value"].replace("<bucket>", "bucket")
        monkeypatch.setenv(variable["name"], value)
    settings = load_settings()
    assert settings.run_uri == "s3://bucket/runs/first-run"
    assert settings.grace_seconds == pod["terminationGracePeriodSeconds"]
    assert settings.metrics_port == pod["containers"][0]["ports"][0]["containerPort"]
    assert str(settings.work_dir) == pod["containers"][0]["volumeMounts"][0]["mountPath"]
    assert StopToken(settings.grace_seconds).seconds_left() == 60


def test_its_failure_policy_is_the_table_of_exit_codes(spec: dict[str, Any]) -> None:
    rules = spec["podFailurePolicy"]["rules"]
    by_action: dict[str, list[int]] = {}
    for rule in rules:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["operator"] == "In"
            assert rule["onExitCodes"]["containerName"] == "job"
            by_action.setdefault(rule["action"], []).extend(rule["onExitCodes"]["values"])
    for action in ("Ignore", "FailJob"):
        expected = [code for code, (_, policy) in EXIT_CODES.items() if policy == action]
        assert by_action[action] == sorted(expected)
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    # What the API server asks of a Job that has such a policy.
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed"


def test_it_runs_without_privileges(spec: dict[str, Any]) -> None:
    pod = spec["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert isinstance(container["resources"]["limits"]["nvidia.com/gpu"], int)
