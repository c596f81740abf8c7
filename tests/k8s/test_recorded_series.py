"""The alerts on series that real runs made (`scripts/record_series.py`), by promtool itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.chart import ROOT, run

RECORDED = Path(__file__).parent / "recorded"
FILES = ROOT / "helm" / "files"
ALERTS = (FILES / "alerts.yaml").read_text()
OF_JOBS = (FILES / "alerts-of-jobs.yaml").read_text()
FIRE: dict[str, set[str]] = {
    "healthy": set(),
    "diverging": {"ForgeJobFailed", "ForgeJobLossNotFinite"},
    "overfitting": {"ForgeJobOverfitting"},
    "grace_too_short": {"ForgeJobGraceTooShort"},
    "hanging": {"ForgeJobStalled", "ForgeJobNotDurable"},
    "damaged": {"ForgeJobCheckpointRejected"},
    "store_fails": {"ForgeJobNotDurable"},
}
"""Situation → the alerts that fire at some time while it lasts; no others do."""


def _fired(recording: dict[str, Any], samples: Iterable[int], folder: Path) -> set[str]:
    """At any of these; promtool says which alerts it got where none is expected."""
    rules = yaml.safe_load(ALERTS)
    for rule in rules["groups"][0]["rules"]:
        rule["annotations"] = {}
    names = [rule["alert"] for rule in rules["groups"][0]["rules"]]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    series = [{"series": s, "values": v} for s, v in recording["series"].items()]
    never = [
        {"alertname": name, "eval_time": f"{30 * sample}s", "exp_alerts": []}
        for name in names
        for sample in samples
    ]
    case = {"interval": recording["interval"], "input_series": series, "alert_rule_test": never}
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": recording["interval"],
        "tests": [case],
    }
    (folder / "tests.yaml").write_text(yaml.safe_dump(tests))
    tested = run("promtool", "test", "rules", str(folder / "tests.yaml"))
    output = tested.stdout + tested.stderr
    fired = set(re.findall(r"alertname: (\w+)", output))
    assert bool(fired) == bool(tested.returncode), output
    return fired


@pytest.mark.parametrize("situation", FIRE)
def test_a_real_run_fires_these_alerts_and_no_others(situation: str, tmp_path: Path) -> None:
    recording = json.loads((RECORDED / f"{situation}.json").read_text())
    samples = recording["samples"]
    assert _fired(recording, range(0, samples, 2), tmp_path) == FIRE[situation]
    assert _fired(recording, [samples], tmp_path) == set(), "a quarter of an hour after the end"


def test_every_recording_is_used() -> None:
    assert {path.stem for path in RECORDED.glob("*.json")} == set(FIRE)


def test_every_alert_has_its_section_in_the_runbook() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    files = (ALERTS, OF_JOBS)
    rules = [rule for text in files for rule in yaml.safe_load(text)["groups"][0]["rules"]]
    sections = {part.split("\n")[0]: part for part in page.split("\n## ")[1:]}
    assert set(sections) == {rule["alert"] for rule in rules}
    for rule in rules:
        assert {"summary", "description", "runbook"} <= rule["annotations"].keys()
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        for part in ("**Means**", "**Look at**", "**Do**"):
            assert part in sections[rule["alert"]], rule["alert"]
