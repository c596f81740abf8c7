"""A real Prometheus watches a real run through a preemption; its queries are the dashboard's."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
from pathlib import Path

import pytest

from job.ledger import read_record
from job.storage import open_storage
from tests.e2e.conftest import job_env as job_env
from tests.e2e.jobs import started
from tests.k8s.chart import tool
from tests.prometheus import Prometheus, prometheus
from tests.pushgateway import PASSWORD, pushgateway
from tests.tiny import write_rows

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "helm" / "files"

NO_VALUE_ON_A_CPU = ("forge_gpu_memory_bytes",)
RUN = 'run_id="run"'
STEPS = 90


@pytest.mark.usefixtures("forked_jobs")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prometheus_sees_a_preempted_run_as_one(
    job_env: dict[str, str], bucket: str, tmp_path: Path
) -> None:
    rules = tmp_path / "alerts.yaml"
    rules.write_text((FILES / "alerts.yaml").read_text())
    # Within one epoch, so that no batch is a short one; long enough to be seen before its end.
    rows = write_rows(tmp_path / "more-rows.jsonl", 260)
    open_storage(bucket).upload("data/rows.jsonl", rows)
    job_env |= {
        "FORGE_MAX_STEPS": str(STEPS),
        "FORGE_PER_DEVICE_TRAIN_BATCH_SIZE": "2",
        "FORGE_GRADIENT_ACCUMULATION_STEPS": "1",
        "FORGE_GRACE_SECONDS": "3600",
    }
    with (
        prometheus(tmp_path / "prometheus", rules) as server,
        pushgateway(tmp_path / "gateway") as gateway,
    ):
        with started(job_env, tmp_path / "first.log") as job:
            server.scrape(job.port, "first", "run")
            job.wait_until(lambda progress: progress.get("step", 0) >= 3)
            server.wait_for("forge_global_step > 2")
            job.signal(signal.SIGTERM)
            assert job.ended().code == 75

        env = job_env | {
            "FORGE_METRICS_LINGER_SECONDS": "200",
            "FORGE_PUSHGATEWAY_URL": gateway.url(),
        }
        with started(env, tmp_path / "second.log") as job:
            server.scrape(job.port, "second", "run")
            # The pod has trained to its end, and is still there for a last scrape.
            server.wait_for('forge_run_phase{phase="finished",pod="second"} == 1')
            _the_values_are_right(server, job_env)
            _every_panel_has_a_value(server)
            _both_attempts_are_marked(server)
            _no_alert_fires(server)
            text = job.get("/metrics")
            job.wait_until(lambda _: "pushed to" in (tmp_path / "second.log").read_text())
            job.signal(signal.SIGTERM)  # ends the linger, and does not undo the success
            ended = job.ended()
        assert gateway.value("forge_global_step", run_id="run") == STEPS
        assert gateway.value("forge_run_phase", run_id="run", phase="finished") == 1
        assert gateway.value("forge_resumes_total", run_id="run") == 1
    assert ended.code == 0, ended.log
    assert PASSWORD not in ended.log
    _promtool_accepts(text)
    assert _series(text) == EXPECTED_SERIES


def _the_values_are_right(server: Prometheus, env: dict[str, str]) -> None:
    found = read_record(open_storage(f"{env['FORGE_OUTPUT_URI']}/run"))
    assert found is not None
    record = found[0]
    last = 'pod="second"'
    assert server.value(f"forge_global_step{{{last}}}") == STEPS
    assert server.value(f"forge_max_steps{{{last}}}") == STEPS
    assert server.value(f"forge_eta_seconds{{{last}}}") == 0
    assert server.value(f"forge_attempt{{{last}}}") == 2
    assert server.value(f"forge_grace_seconds{{{last}}}") == 3600
    assert server.value(f"forge_save_seconds{{{last}}}") == 600
    assert server.value(f"forge_stall_seconds{{{last}}}") == 900
    assert server.value(f"forge_resumes_total{{{last}}}") == 1
    assert server.value(f"forge_wasted_steps_total{{{last}}}") == 0
    assert server.value(f"forge_checkpoint_last_step{{{last}}}") == record.checkpoints[-1].step
    assert server.value(f"forge_train_loss{{{last}}}") == record.progress.loss
    assert 0 < server.value(f"forge_goodput_ratio{{{last}}}") <= 1
    assert server.value(f"forge_safe_to_preempt{{{last}}}") == 1
    assert server.value(f"forge_at_risk_seconds{{{last}}}") == 0
    assert server.value(f"sum(forge_run_phase{{{last}}})") == 1
    assert server.value(f"forge_samples_total{{{last}}}") == STEPS * 2
    exact = server.value(f'forge_tool_call_accuracy{{model="adapter",measure="exact",{last}}}')
    assert exact == record.results["evaluation"]["adapter"]["exact"]["rate"]
    for name in ("samples_total", "tokens_total", "supervised_tokens_total", "global_step"):
        [values] = server.history(f"max by (run_id) (forge_{name}{{{RUN}}})", 300)
        assert values == sorted(values), f"{name} has gone back"
        assert values[-1] > 0
    # A counter that starts at 0 in the new pod would count the first pod's samples once more.
    [first] = server.history('forge_samples_total{pod="second"}', 300)
    assert first[0] > 0
    etas = server.history("forge_eta_seconds", 300)
    assert all(math.isfinite(eta) and eta >= 0 for series in etas for eta in series)


def _every_panel_has_a_value(server: Prometheus) -> None:
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) >= 20
    for query in queries:
        filled = query.replace("$namespace", ".*").replace("$run_id", ".*")
        if any(name in query for name in NO_VALUE_ON_A_CPU):
            assert server.query(filled) == []
            continue
        # A rate needs two samples, and a machine at work may have left room for one.
        server.wait_for(filled)
        found = server.query(filled)
        if "histogram_quantile" in query or "_seconds_count" in query:
            continue  # none of no step or checkpoint: all may lie between two scrapes
        assert all(math.isfinite(float(s["value"][1])) for s in found), query


def _both_attempts_are_marked(server: Prometheus) -> None:
    [annotation] = json.loads((FILES / "dashboard.json").read_text())["annotations"]["list"]
    query = annotation["expr"].replace("$namespace", ".*").replace("$run_id", ".*")
    assert {values[0] for values in server.history(query, 300)} == {1, 2}


def _no_alert_fires(server: Prometheus) -> None:
    server.wait_until(
        lambda: all(rule["health"] == "ok" for rule in server.rules()), "all rules evaluated"
    )
    for rule in server.rules():
        assert server.query(rule["query"]) == [], rule["name"]
        assert rule["state"] == "inactive", rule["name"]


def _promtool_accepts(text: str) -> None:
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics", "--extended"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "forge_" not in checked.stderr, checked.stderr


def _series(text: str) -> int:
    return len(re.findall(r"(?m)^forge_", text))


EXPECTED_SERIES = 149
"""Of a finished run: whatever its data and its store do, there are no more."""
