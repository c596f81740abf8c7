"""The alerts on series that real runs made (`scripts/record_series.py`), by promtool itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.chart import ROOT, example, only, pod_of, run

RECORDED = Path(__file__).parent / "recorded"
FILES = ROOT / "helm" / "files"
ALERTS = (FILES / "alerts.yaml").read_text()
OF_JOBS = (FILES / "alerts-of-jobs.yaml").read_text()
SCRAPE_SECONDS = 30
FIRE: dict[str, set[str]] = {
    "healthy": set(),
    "diverging": {"ForgeJobFailed", "ForgeJobLossNotFinite"},
    "overfitting": {"ForgeJobOverfitting"},
    "grace_too_short": {"ForgeJobGraceTooShort"},
    "hanging": {"ForgeJobStalled", "ForgeJobNotDurable"},
    "hanging_at_once": {"ForgeJobStalled", "ForgeJobNotDurable"},
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
        {"alertname": name, "eval_time": f"{SCRAPE_SECONDS * sample}s", "exp_alerts": []}
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


def _values(packed: str) -> list[str]:
    """Sample by sample: in promtool's notation `7x3` is four, `_x3` three."""
    found = []
    for part in packed.split():
        value, _, count = part.partition("x")
        found += [value] * (int(count or 1) + bool(count and value != "_"))
    return found


def _seconds_until_killed(stall_seconds: float) -> float:
    """From the last sign of life until the kubelet may have ended the pod: the probe's third
    failure can be so early, and a process can go at its first SIGTERM."""
    job = only(example("monitoring"), "Job")
    probe = pod_of(job)["containers"][0]["livenessProbe"]
    failures: int = probe["failureThreshold"] - 1
    return stall_seconds + failures * float(probe["periodSeconds"])


def _ended_by_the_kubelet(recording: dict[str, Any]) -> dict[str, Any]:
    """The recorded process had none, and went on to hang."""
    series = {name: _values(packed) for name, packed in recording["series"].items()}
    [alive] = [v for name, v in series.items() if name.startswith("forge_sign_of_life")]
    [stall] = [v for name, v in series.items() if name.startswith("forge_stall_seconds")]
    killed = float(alive[-2]) + _seconds_until_killed(float(stall[-2]))
    left = int(killed / SCRAPE_SECONDS)
    assert 0 < left < len(alive), "it was recorded for longer"
    cut = {name: " ".join([*values[:left], "stale"]) for name, values in series.items()}
    return recording | {"series": cut}


@pytest.mark.parametrize("situation", ["hanging", "hanging_at_once"])
def test_a_hang_is_told_of_before_the_kubelet_ends_the_pod(situation: str, tmp_path: Path) -> None:
    recording = _ended_by_the_kubelet(json.loads((RECORDED / f"{situation}.json").read_text()))
    samples = recording["samples"]
    assert _fired(recording, range(samples), tmp_path) == {"ForgeJobStalled"}
    assert _fired(recording, [samples], tmp_path) == set(), "it is over in the end"


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
