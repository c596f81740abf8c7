"""Whose Jobs a release's alert on Jobs tells of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.k8s.chart import Manifest, example, jobs_of, only, run


def _given_up(manifests: list[Manifest], failed: list[str], folder: Path) -> list[str]:
    """Of the Jobs that have failed, those which the release's alert tells of: promtool says so."""
    spec = only(manifests, "PrometheusRule")["spec"]
    for rule in (rule for group in spec["groups"] for rule in group["rules"]):
        rule["annotations"] = {}
    series = 'kube_job_failed{{namespace="ml",job_name="{}",condition="true"}}'.format
    none = {"alertname": "ForgeJobGivenUp", "eval_time": "5m", "exp_alerts": []}
    case = {
        "interval": "1m",
        "input_series": [{"series": series(name), "values": "1x9"} for name in failed],
        "alert_rule_test": [none],
    }
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    tests = {"rule_files": ["rules.yaml"], "tests": [case]}
    (folder / "tests.yaml").write_text(yaml.safe_dump(tests))
    tested = run("promtool", "test", "rules", str(folder / "tests.yaml"))
    told = re.findall(r'job_name="([^"]+)"', tested.stdout + tested.stderr)
    assert bool(told) == bool(tested.returncode), tested.stdout + tested.stderr
    return sorted(told)


OTHERS: Final = ["teamwork-balanced-0a1b2c3d", "team-weather-balanced-0a1b2c3d", "team-backup-1",
                 "xteam-balanced-0a1b2c3d", "team-run-2", "teamXa-balanced-0a1b2c3d"]  # fmt: skip
"""Names of Jobs of other releases, and of what isn't ours, that begin like a release `team`."""


@pytest.mark.parametrize(
    ("release", "sets"),
    [
        ("team", ()),
        ("team", ('runId="run"',)),
        ("x", ('fullnameOverride="team"', 'distributed={"kind":"jobset","nodes":2}')),
        ("team.a", ('runId="run"',)),
    ],
)
def test_the_alert_on_jobs_is_on_all_of_the_release_and_no_others(
    release: str, sets: tuple[str, ...], tmp_path: Path
) -> None:
    """Those that an earlier upgrade made of other values too, which go on."""
    manifests = example("monitoring", *sets, release=release)
    own = [job["metadata"]["name"] for job in jobs_of(manifests)]
    earlier = f"{'team' if release == 'x' else release}-fast-dev-00000000"
    if not own[0].endswith("-run"):
        changed = example("monitoring", *sets, 'profile="max_quality"', release=release)
        own += [job["metadata"]["name"] for job in jobs_of(changed)]
    own.append(earlier)
    assert _given_up(manifests, own + OTHERS, tmp_path) == sorted(own)


def test_the_alert_on_jobs_is_on_each_of_a_large_fleet(tmp_path: Path) -> None:
    names = [f"customer-with-a-long-name-{n:03}" for n in range(60)]
    runs = [{"name": name, "datasetUri": f"s3://bucket/{name}/"} for name in names]
    values = tmp_path / "runs.yaml"
    values.write_text(yaml.safe_dump({"runs": runs}))
    manifests = example("monitoring", release="t", options=(f"--values={values}",))
    own = [job["metadata"]["name"] for job in jobs_of(manifests)]
    assert len(own) == 60
    others = ["t-customer-with-a-long-name-060-balanced-0a1b2c3d"]
    assert _given_up(manifests, [*own, *others], tmp_path) == sorted(own)
