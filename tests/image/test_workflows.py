"""The workflows of the code's host: sound, and without a moving part of somebody else's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.image.built import ROOT
from tests.image.tools import complaints

EXAMPLE = "k8s/ci/github-actions.yml"
WORKFLOWS = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / EXAMPLE]


def test_zizmor_is_content() -> None:
    assert complaints("zizmor", "--offline", "--no-progress", "--quiet", ".github", EXAMPLE) == ""


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit(workflow: Path) -> None:
    used = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    assert len(used) > 0
    pinned = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in used if not pinned.fullmatch(line)] == []


def test_ci_runs_what_developers_run() -> None:
    assert ".ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
