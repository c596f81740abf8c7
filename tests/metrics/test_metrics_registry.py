"""The exposition: names, types and values as Prometheus reads them."""

import math
import re
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from job.metrics import PHASES, BuildInfo, Metrics, Totals
from job.metrics.labels import OPERATIONS
from job.storage import Observer

ROOT = Path(__file__).resolve().parents[2]

BUILD = BuildInfo(version="1.2.3", engine="reference", profile="fast_dev", model="smollm2")
TOLD = {
    "build_info": "gauge",
    "run_phase": "gauge",
    "attempt": "gauge",
    "exit_code": "gauge",
    "global_step": "gauge",
    "max_steps": "gauge",
    "epoch": "gauge",
    "train_loss": "gauge",
    "eval_loss": "gauge",
    "learning_rate": "gauge",
    "grad_norm": "gauge",
    "step_duration_seconds": "histogram",
    "tokens_total": "counter",
    "supervised_tokens_total": "counter",
    "samples_total": "counter",
    "supervised_token_ratio": "gauge",
    "last_step_timestamp_seconds": "gauge",
    "sign_of_life_timestamp_seconds": "gauge",
    "eta_seconds": "gauge",
    "gpu_memory_bytes": "gauge",
    "dataset_rows": "gauge",
    "checkpoint_last_step": "gauge",
    "checkpoint_last_success_timestamp_seconds": "gauge",
    "checkpoint_duration_seconds": "histogram",
    "checkpoint_stall_seconds_total": "counter",
    "checkpoint_bytes": "gauge",
    "checkpoint_failures_total": "counter",
    "checkpoint_rejected_total": "counter",
    "resumes_total": "counter",
    "wasted_steps_total": "counter",
    "at_risk_seconds": "gauge",
    "goodput_ratio": "gauge",
    "safe_to_preempt": "gauge",
    "s3_bytes_total": "counter",
    "s3_retries_total": "counter",
    "tool_call_accuracy": "gauge",
}
"""Section 5 of the contract."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(BUILD)


def read(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"forge_{name}", labels)


def whole_run(metrics: Metrics) -> Metrics:
    """One of everything."""
    metrics.attempt(2)
    metrics.planned(10)
    metrics.dataset({"train": 80, "eval": 20})
    metrics.restore(4, Totals(400, 100, 32, 8.0), held_seconds=9, resumes=1, wasted_steps=2)
    metrics.phase("training")
    metrics.step_done(5, 2.0, tokens=100, supervised_tokens=30, samples=8)
    metrics.logged({"loss": 2.5, "eval_loss": 2.0, "learning_rate": 1e-4, "grad_norm": 0.5})
    metrics.logged({"epoch": 0.5})
    metrics.gpu_memory({"allocated": 10})
    metrics.checkpoint_taken(5, 0.1)
    metrics.checkpoint_stalled(0.1)
    metrics.checkpoint_failed("unavailable")
    metrics.checkpoint_committed(5, 1234, upload_seconds=0.3, commit_seconds=0.1)
    metrics.checkpoint_rejected()
    metrics.sent(1000)
    metrics.received(50)
    metrics.retried("PutObject")
    metrics.evaluated(
        {"rows": 9, "base": {"exact": {"rate": 0.1}}, "adapter": {"exact": {"rate": 0.7}}}
    )
    metrics.ending(0)
    return metrics


def test_every_metric_of_the_contract_is_there_with_its_type(metrics: Metrics) -> None:
    text = generate_latest(whole_run(metrics).registry).decode()
    types = dict(re.findall(r"^# TYPE forge_(\S+) (\S+)$", text, re.MULTILINE))
    assert types == TOLD


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    """What `promtool check metrics` checks."""
    for family in text_string_to_metric_families(
        generate_latest(whole_run(metrics).registry).decode()
    ):
        assert re.fullmatch(r"forge_[a-z0-9_]+", family.name)
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert not sample.name.endswith("_created")
        for unit in ("milliseconds", "minutes", "megabytes", "percent"):
            assert unit not in family.name


def test_openmetrics_is_well_formed(metrics: Metrics) -> None:
    text = generate_openmetrics(whole_run(metrics).registry).decode()  # type: ignore[no-untyped-call]
    names = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert {"forge_tokens", "forge_train_loss", "forge_step_duration_seconds"} <= names


def test_values_unknown_yet_are_absent(metrics: Metrics) -> None:
    for name in ("train_loss", "eval_loss", "eta_seconds", "max_steps", "checkpoint_last_step"):
        assert read(metrics, name) is None
    assert read(metrics, "global_step") is None, "it may be a resumed run's"
    assert read(metrics, "at_risk_seconds") == 0


def test_totals_are_absent_until_they_are_the_whole_runs(metrics: Metrics) -> None:
    """rate() would take a jump from 0 to what earlier attempts did for a burst."""
    names = ("tokens_total", "samples_total", "resumes_total", "wasted_steps_total")
    assert {read(metrics, name) for name in (*names, "goodput_ratio")} == {None}
    metrics.restore(0, Totals())
    assert {read(metrics, name) for name in names} == {0}


def test_a_later_attempt_begins_where_the_record_left_the_run(metrics: Metrics) -> None:
    metrics.attempt(3, step=40, max_steps=100)
    assert (read(metrics, "global_step"), read(metrics, "max_steps")) == (40, 100)
    assert read(metrics, "checkpoint_last_step") == 40
    assert read(metrics, "safe_to_preempt") == 1


def test_counters_go_on_from_the_checkpoint(metrics: Metrics) -> None:
    whole_run(metrics)
    assert read(metrics, "tokens_total") == 500
    assert read(metrics, "supervised_tokens_total") == 130
    assert read(metrics, "samples_total") == 40
    assert read(metrics, "supervised_token_ratio") == 0.26
    assert (read(metrics, "resumes_total"), read(metrics, "wasted_steps_total")) == (1, 2)
    assert metrics.totals() == Totals(500, 130, 40, 10.0)


def test_exactly_one_phase_is_one(metrics: Metrics) -> None:
    for phase in PHASES:
        metrics.phase(phase)
        values = {name: read(metrics, "run_phase", phase=name) for name in PHASES}
        assert values == {name: float(name == phase) for name in PHASES}


def test_a_loss_that_is_not_finite_is_exported_as_such(metrics: Metrics) -> None:
    metrics.logged({"loss": float("nan")})
    loss = read(metrics, "train_loss")
    assert loss is not None
    assert math.isnan(loss)


def test_the_mean_loss_of_the_final_log_is_not_the_training_loss(metrics: Metrics) -> None:
    metrics.logged({"loss": 0.5})
    metrics.logged({"train_loss": 1.7, "train_runtime": 12.0})
    assert read(metrics, "train_loss") == 0.5


def test_labels_and_values(metrics: Metrics) -> None:
    whole_run(metrics)
    assert read(metrics, "build_info", **vars(BUILD)) == 1
    assert read(metrics, "dataset_rows", result="eval") == 20
    assert read(metrics, "tool_call_accuracy", model="adapter", measure="exact") == 0.7
    assert read(metrics, "s3_bytes_total", direction="sent") == 1000
    assert read(metrics, "s3_retries_total", operation="PutObject") == 1
    assert read(metrics, "checkpoint_duration_seconds_count", stage="commit") == 1
    assert read(metrics, "checkpoint_bytes") == 1234
    assert read(metrics, "gpu_memory_bytes", kind="allocated") == 10


def test_failures_are_counted_by_class_and_start_at_zero(metrics: Metrics) -> None:
    assert read(metrics, "checkpoint_failures_total", reason="unavailable") == 0
    metrics.checkpoint_failed("AccessDenied")
    assert read(metrics, "checkpoint_failures_total", reason="access_denied") == 1


def test_labels_come_from_closed_sets(metrics: Metrics) -> None:
    series = len(generate_latest(metrics.registry).splitlines())
    for number in range(50):
        metrics.retried(f"Operation{number}")
        metrics.checkpoint_failed(f"bucket-{number} said no")
    assert len(generate_latest(metrics.registry).splitlines()) == series
    assert read(metrics, "s3_retries_total", operation="other") == 50
    assert read(metrics, "checkpoint_failures_total", reason="other") == 50


def test_a_retry_of_any_request_that_is_made_starts_at_zero(metrics: Metrics) -> None:
    """What the job calls on boto3's client is what may be repeated."""
    source = "".join(path.read_text() for path in (ROOT / "job" / "storage").glob("s3*.py"))
    called = re.findall(r"\b_?client\.((?!get_paginator|close|meta)[a-z_0-9]+)\(", source)
    called += re.findall(r"get_paginator\(\"(\w+)\"", source)
    assert len(called) >= 8
    assert {"".join(w.capitalize() for w in c.split("_")) for c in called} <= set(OPERATIONS)
    for operation in OPERATIONS:
        assert read(metrics, "s3_retries_total", operation=operation) == 0


def test_metrics_observe_storage(metrics: Metrics) -> None:
    observer: Observer = metrics
    observer.sent(7)
    assert read(metrics, "s3_bytes_total", direction="sent") == 7


def test_an_evaluation_without_a_base_is_fine(metrics: Metrics) -> None:
    metrics.evaluated({"rows": 1, "adapter": {"exact": {"rate": 1.0}}})
    assert read(metrics, "tool_call_accuracy", model="adapter", measure="exact") == 1
    assert read(metrics, "tool_call_accuracy", model="base", measure="exact") is None


def test_label_values_with_odd_characters_are_escaped() -> None:
    metrics = Metrics(BuildInfo(version="1", engine='a"b', profile="c\\d", model="e\nf"))
    (family,) = [
        family
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        if family.name == "forge_build_info"
    ]
    assert family.samples[0].labels["model"] == "e\nf"


def test_no_update_is_lost_between_threads(metrics: Metrics) -> None:
    def work() -> None:
        for step in range(500):
            metrics.step_done(step, 0.1, tokens=2, supervised_tokens=1, samples=1)
            metrics.sent(3)

    metrics.restore(0, Totals())
    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        generate_latest(metrics.registry)
    for thread in threads:
        thread.join()
    assert read(metrics, "tokens_total") == 4 * 500 * 2
    assert read(metrics, "s3_bytes_total", direction="sent") == 4 * 500 * 3
    assert read(metrics, "step_duration_seconds_count") == 4 * 500


def test_the_table_of_the_documentation_is_the_registrys(metrics: Metrics) -> None:
    metrics.conditional_writes(True)
    metrics.grace_needed(1.0)
    metrics.limits(grace=60, save=600, stall=900)
    rows = set()
    for family in whole_run(metrics).registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        listed = ", ".join(f"`{label}`" for label in labels) or "–"
        rows.add(f"| `{name}` | {family.type} | {listed} | {family.documentation} |")
    page = (ROOT / "docs" / "observability.md").read_text()
    assert {line for line in page.splitlines() if line.startswith("| `forge_")} == rows
