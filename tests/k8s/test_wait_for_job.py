"""scripts/wait_for_job.sh with a `kubectl` that answers as a cluster would."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.k8s.chart import ROOT

SCRIPT = ROOT / "scripts" / "wait_for_job.sh"
ANSWERS = """#!/usr/bin/env bash
set -euo pipefail
echo "$*" >> "$CALLS"
case "$*" in
  *'"Complete"'*) [ "$(wc -l < "$CALLS")" -gt 3 ] && echo "$COMPLETE" ;;
  *'"Failed"'*) [ "$(wc -l < "$CALLS")" -gt 3 ] && echo "$FAILED" ;;
  *exitCode*) echo "$CODE" ;;
  *message*) echo "exit $CODE: what the pod said" ;;
esac
exit 0
"""


def _wait(folder: Path, seconds: int = 20, **answers: str) -> subprocess.CompletedProcess[str]:
    kubectl = folder / "kubectl"
    kubectl.write_text(ANSWERS)
    kubectl.chmod(0o755)
    (folder / "calls").touch()
    known = {"COMPLETE": "", "FAILED": "", "CODE": "0", "WAIT_SECONDS": "0.1"} | answers
    env = {"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(folder / "calls"), **known}
    command = [str(SCRIPT), "ml", "run-1", str(seconds)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


def test_a_complete_job_is_a_success(tmp_path: Path) -> None:
    ended = _wait(tmp_path, COMPLETE="True")
    assert (ended.returncode, ended.stdout) == (0, "complete: exit 0: what the pod said\n")
    calls = (tmp_path / "calls").read_text()
    assert "--namespace ml get job run-1" in calls
    assert "batch.kubernetes.io/job-name=run-1" in calls


@pytest.mark.parametrize("code", [65, 80])
def test_a_failed_job_gives_the_code_of_its_last_pod(tmp_path: Path, code: int) -> None:
    ended = _wait(tmp_path, FAILED="True", CODE=str(code))
    assert ended.returncode == code
    assert "what the pod said" in ended.stderr


def test_a_job_that_failed_without_a_pod_is_a_failure(tmp_path: Path) -> None:
    assert _wait(tmp_path, FAILED="True", CODE="").returncode == 1


def test_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    ended = _wait(tmp_path, seconds=1)
    assert ended.returncode == 124
    assert "has not ended" in ended.stderr
