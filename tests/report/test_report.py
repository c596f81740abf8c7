"""The three files of a report, for runs of every kind of ending."""

import json
import math
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from job.dataset.review.preview import PreviewConversation, views
from job.ledger import (
    Attempt,
    Checkpoint,
    Holder,
    Progress,
    RunRecord,
    flatten,
    held_seconds,
)
from job.plots import loss_curve_svg
from job.plots.series import scientific
from job.report import build
from job.report.examples import view

EVIL = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
HISTORY: list[dict[str, Any]] = [
    {
        "step": 1,
        "loss": 2.5,
        "step_seconds": 0.5,
        "supervised_tokens": 40,
        "grad_norm": 1.0,
        "learning_rate": 1e-4,
        "epoch": 0.1,
    },
    {"step": 2, "loss": float("nan"), "epoch": 0.2},
    {"step": 3, "loss": 1.5, "epoch": 0.3},
    {"step": 3, "eval_loss": 1.75, "epoch": 0.3},
    {"step": 4, "train_runtime": 12.0, "train_loss": 1.9},
]
RATE = {"rate": 0.714, "low": 0.6, "high": 0.8, "count": 50}
EVALUATION: dict[str, Any] = {
    "rows": 70,
    "base": {"well_formed": {"rate": 0.0, "low": 0.0, "high": 0.05, "count": 0}, "exact": RATE},
    "adapter": {"well_formed": {"rate": 1.0, "low": 0.95, "high": 1.0, "count": 70}},
    "tools": {EVIL: {"of": 9, "base": 1, "adapter": 8}},
    "examples": [
        {"prompt": EVIL, "expected": "call", "base": "no", "adapter": "cal", "right": False},
        {"prompt": "Hi", "expected": "Hi", "base": "Hi", "adapter": "Hi"},
    ],
}


def a_record(**changes: Any) -> RunRecord:
    holder = Holder(token="t")
    values: dict[str, Any] = {
        "run_id": "run-1",
        "status": "succeeded",
        "attempt": 3,
        "settings": {"profile": "fast_dev", "lora_r": 8},
        "fingerprint": flatten(
            {"data": [{"uri": EVIL}], "versions": {"torch": "2.13.0", "unsloth": None}}
        ),
        "progress": Progress(phase="finished", step=4, max_steps=4),
        "updated_at": "2026-11-20T12:50:00.000+00:00",
        "checkpoints": [
            Checkpoint(
                step=2,
                attempt=2,
                key="checkpoints/00000002-002/",
                manifest_sha256="0" * 64,
                bytes=1_000_000,
                committed_at="2026-11-20T12:30:00.000+00:00",
            )
        ],
        "attempts": [
            Attempt(
                number=1,
                holder=holder,
                started_at="2026-11-20T12:00:00.000+00:00",
                ended_at="2026-11-20T12:10:00.000+00:00",
                to_step=1,
                exit_code=75,
                reason=EVIL,
            ),
            Attempt(
                number=2,
                holder=holder,
                started_at="2026-11-20T12:15:00.000+00:00",
                from_step=1,
                to_step=2,
            ),
            Attempt(
                number=3,
                holder=holder,
                started_at="2026-11-20T12:45:00.000+00:00",
                from_step=2,
                to_step=4,
                lost_steps=1,
            ),
        ],
    }
    return RunRecord(**(values | changes))


def a_report(record: RunRecord | None = None, **changes: Any) -> dict[str, bytes]:
    values: dict[str, Any] = {
        "history": HISTORY,
        "data_report": {"rows": {"train": 80, EVIL: 1}, "files": []},
        "evaluation": EVALUATION,
        "gpu_hour_price": 2.0,
    }
    return build(record or a_record(), **(values | changes))


@pytest.fixture(scope="module")
def report() -> dict[str, bytes]:
    """Of `a_record`; made once, since drawing takes a second."""
    return a_report()


class Page(HTMLParser):
    """What a browser makes of a page: its elements and its text."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.text += " " if tag in ("td", "th") else ""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def test_report_json_is_strict(report: dict[str, bytes]) -> None:
    document = json.loads(report["report.json"], parse_constant=pytest.fail)
    assert document["run_id"] == "run-1"
    assert document["training"] == {
        "first": {"step": 1, "loss": 2.5},
        "last": {"step": 3, "loss": 1.5},
        "best_validation": {"step": 3, "loss": 1.75},
        "last_validation": {"step": 3, "loss": 1.75},
        "step_seconds": 0.5,
        "logged_not_finite": 1,
        "first_not_finite": {"step": 2, "loss": "nan"},
    }
    assert document["data"]["rows"]["train"] == 80
    assert document["evaluation"]["base"]["exact"] == RATE


def test_a_loss_of_other_data_is_not_the_best() -> None:
    record = a_record()
    record.attempts[2].validation_changed = True
    history = [{"step": 2, "eval_loss": 0.1}, {"step": 4, "eval_loss": 1.2}]
    training = json.loads(a_report(record, history=history)["report.json"])["training"]
    assert training["best_validation"] == {"step": 4, "loss": 1.2}


def test_metrics_jsonl_has_each_entry_and_null_for_nan(report: dict[str, bytes]) -> None:
    lines = report["metrics.jsonl"].splitlines()
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert found == [HISTORY[0], HISTORY[1] | {"loss": None}, *HISTORY[2:]]


def test_time_and_money_are_those_of_all_attempts(report: dict[str, bytes]) -> None:
    document = json.loads(report["report.json"])
    # The second was killed; its last checkpoint, 15 minutes in, is the last that is known of it.
    assert [attempt["seconds"] for attempt in document["attempts"]] == [600, 900, 300]
    assert [a["seconds_at_least"] for a in document["attempts"]] == [False, True, False]
    assert document["cost"] == {
        "gpus": 1,
        "gpu_hours": 0.5,
        "held_hours": 0.5,
        "at_least": True,
        "price_per_gpu_hour": 2.0,
        "amount": 1.0,
        "wasted_steps": 1,
        "wasted_at_least": True,
        "wasted_hours": 0.0001,
        "wasted_amount": 0.0003,
    }


def test_each_process_is_a_gpu_to_pay_for() -> None:
    report = a_report(a_record(fingerprint={"world_size": 4}))
    cost = json.loads(report["report.json"])["cost"]
    assert (cost["gpus"], cost["gpu_hours"], cost["amount"]) == (4, 2.0, 4.0)
    assert (cost["wasted_hours"], cost["wasted_amount"]) == (0.0001, 0.0011), "clock, money"
    text = " ".join(Page(report["report.html"]).text.split())
    assert "GPU hours ≥ 2.00 on 4 GPUs" in text


def test_each_attempt_is_paid_for_with_its_own_gpus() -> None:
    """Four for the ten minutes and the quarter of an hour, the last one alone."""
    record = a_record(fingerprint={"world_size": 1})
    for attempt, processes in zip(record.attempts, (4, 4, 1), strict=True):
        attempt.processes = processes
    report = a_report(record)
    cost = json.loads(report["report.json"])["cost"]
    assert cost["gpu_hours"] == pytest.approx((600 * 4 + 900 * 4 + 300) / 3600, abs=1e-4)
    assert cost["amount"] == pytest.approx(2 * cost["gpu_hours"], abs=1e-3)
    assert cost["wasted_amount"] == 0.0011, "the lost step was made by four"
    assert cost["gpus"] == 1


def test_held_seconds_of_earlier_attempts() -> None:
    assert held_seconds(a_record()) == 1800
    assert held_seconds(a_record(), before_attempt=3) == 1500


def test_a_killed_attempt_held_its_pod_until_its_last_heartbeat() -> None:
    """Also once retention has taken all of its checkpoints away."""
    record = a_record()
    killed = record.attempts[1]
    killed.last_seen_at = (
        datetime.fromisoformat(killed.started_at) + timedelta(minutes=40)
    ).isoformat()
    record.checkpoints = [c for c in record.checkpoints if c.attempt != killed.number]
    assert held_seconds(record) == 600 + 2400 + 300


@pytest.mark.parametrize("noted", [True, None])
def test_nobody_knows_what_a_killed_attempt_did_after_its_last_heartbeat(
    noted: bool | None,
) -> None:
    """Also where the record is of a release that did not note it."""
    record = a_record()
    record.attempts[2].lost_steps, record.attempts[2].lost_at_least = 0, noted
    report = a_report(record)
    document = json.loads(report["report.json"])
    cost = document["cost"]
    assert (cost["wasted_steps"], cost["wasted_at_least"]) == (0, True)
    assert [a["lost_at_least"] for a in document["attempts"]] == [False, False, True]
    text = " ".join(Page(report["report.html"]).text.split())
    assert "trained twice ≥ 0 steps what killed attempts did" in text
    assert "2 to 4 ≥ 0" in text


def test_what_is_known_of_lost_steps_is_said_as_such() -> None:
    record = a_record()
    record.attempts[1].ended_at = "2026-11-20T12:40:00.000+00:00"
    report = a_report(record)
    assert json.loads(report["report.json"])["cost"]["wasted_at_least"] is False
    assert "trained twice 1 steps" in " ".join(Page(report["report.html"]).text.split())


def test_a_run_on_a_cpu_has_no_gpu_to_pay_for() -> None:
    report = a_report(a_record(model={"device": "cpu"}))
    cost = json.loads(report["report.json"])["cost"]
    assert (cost["gpus"], cost["gpu_hours"], cost["held_hours"]) == (0, 0, 0.5)
    assert (cost["amount"], cost["wasted_amount"]) == (None, None)
    text = " ".join(Page(report["report.html"]).text.split())
    assert "hours ≥ 0.50 without a GPU" in text
    assert "GPU hours" not in text


def test_no_price_no_money() -> None:
    report = a_report(gpu_hour_price=None)
    assert json.loads(report["report.json"])["cost"]["amount"] is None
    assert "cost ≥" not in Page(report["report.html"]).text


def test_the_page_shows_what_counts(report: dict[str, bytes]) -> None:
    page = Page(report["report.html"])
    text = " ".join(page.text.split())
    assert "Succeeded: the adapter is published." in text
    assert "steps 4 / 4" in text
    assert "exactly right 71.4% 60.0% to 80.0% –" in text
    assert "well-formed 0.0% 0.0% to 5.0% 100.0% 95.0% to 100.0%" in text
    assert "Exactly right, by tool" in text
    assert "9 1 8" in text
    assert "Example 1: wrong" in text
    assert "The loss of step 2 is nan." in text
    assert "≥ 15 min 0 s" in text
    assert "GPU hours ≥ 0.50 cost ≥ 1.00 at 2.0 a GPU hour" in text
    assert "lora_r 8" in text
    assert text.count("versions.torch 2.13.0") == 2, "the environment's and the fingerprint's"
    assert {"svg", "figure"} <= page.tags()
    assert page.open == []
    assert report["report.html"].startswith(b"<!doctype html>")


def test_data_can_not_inject_html() -> None:
    page = Page(a_report(a_record(run_id=EVIL))["report.html"])
    assert not page.tags() & {"script", "img"}
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert page.text.count(EVIL) >= 5  # run id, reason, example, data, fingerprint: as text


def test_the_page_asks_nothing_of_the_network(report: dict[str, bytes]) -> None:
    page = Page(report["report.html"])
    assert not page.tags() & {"link", "script", "img", "iframe", "a"}
    assert not any({"src", "href"} & attrs.keys() for _, attrs in page.elements)
    links = [attrs["xlink:href"] for _, attrs in page.elements if "xlink:href" in attrs]
    assert links
    assert all(link and link.startswith("#") for link in links)
    assert not re.search(rb"url\((?!#)", report["report.html"])
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("status", ["running", "preempted", "failed", "gate_failed", "succeeded"])
def test_a_run_that_left_nothing_has_a_report(status: str) -> None:
    record = RunRecord.model_validate({"run_id": "run-1", "status": status})
    page = Page(build(record, [], {}, None, None)["report.html"])
    assert "Nothing was logged." in page.text
    assert "No held-out tool calls were evaluated." in page.text


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hub-token-1")
    report = a_report(
        a_record(settings={"pushgateway_url": "http://me:hunter2@gateway"}),
        data_report={"note": "read with hub-token-1"},
    )
    for content in report.values():
        assert b"hub-token-1" not in content
        assert b"hunter2" not in content


def test_secrets_in_the_fields_of_a_sample_are_masked() -> None:
    secret = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hI6"
    row = PreviewConversation("a:1", "train", 9, 3, (), {secret: "x"})
    page = a_report(samples=views([row]))["report.html"].decode()
    assert "<dt>***</dt>" in page
    assert secret not in page


def test_an_evaluation_with_unknown_measures_and_null_rates() -> None:
    evaluation = {"rows": 0, "adapter": {"parallel": {"rate": None}, "exact": {"rate": 0.5}}}
    text = " ".join(Page(a_report(evaluation=evaluation)["report.html"]).text.split())
    assert "exactly right – 50.0%" in text
    assert "parallel – –" in text


def test_a_long_run_is_thinned_in_the_page_and_whole_in_the_log() -> None:
    history = [{"step": step, "loss": 1 + math.sin(step)} for step in range(1, 20_001)]
    history[777]["loss"] = 40.0
    report = a_report(history=history)
    assert len(report["metrics.jsonl"].splitlines()) == 20_000
    drawn = [
        attrs["d"] or "" for tag, attrs in Page(report["report.html"]).elements if tag == "path"
    ]
    longest = max(drawn, key=len)
    heights = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", longest)]
    assert 1000 < len(heights) <= 1800  # two for each pixel column
    assert sum(y < min(heights) + 1 for y in heights) == 1  # the spike is still the top
    assert len(report["report.html"]) < 500_000


@pytest.mark.parametrize(
    "line", [[(1, 0.0)], [(1, 2.0), (2, 2.0)], [(0, 1e-9), (1_000_000, 1e9)], [(5, -1.0)]]
)
def test_any_finite_curve_can_be_drawn(line: list[tuple[int, float]]) -> None:
    svg = loss_curve_svg([{"step": step, "loss": loss} for step, loss in line], [1])
    assert svg is not None
    assert not re.search(rb"\d?(nan|inf)[ \"]", svg)
    assert b"var(" not in svg, "a file of its own has no page to take colours from"


def test_a_curve_of_nothing_finite_is_none() -> None:
    assert loss_curve_svg([{"step": 1, "loss": math.nan}, {"step": 2}], [1]) is None


def test_the_same_run_is_drawn_with_the_same_bytes() -> None:
    assert loss_curve_svg(HISTORY, [2]) == loss_curve_svg(HISTORY, [2])


def test_gain_scenarios_and_a_judgement_cut_short_are_told() -> None:
    evaluation = EVALUATION | {
        "turns": 100,
        "stopped_by": "seconds",
        "repeated": 12,
        "gain": {"exact": {"rate": 0.25, "low": 0.1, "high": 0.4}},
        "scenarios": {EVIL: {"of": 5, "base": 2, "adapter": 4}},
    }
    text = " ".join(Page(a_report(evaluation=evaluation)["report.html"]).text.split())
    assert "70 of 100 held-out assistant turns judged, stopped by time (12 more" in text
    assert "exactly right +25.0 points +10.0 to +40.0" in text
    assert "Exactly right, by scenario" in text
    assert "5 2 4" in text


def test_an_evaluation_of_no_turn_says_why() -> None:
    nothing: dict[str, Any] = {"rows": 0, "turns": 9, "base": {}, "adapter": {}}
    by_time = nothing | {"stopped_by": "seconds"}
    text = " ".join(Page(a_report(evaluation=by_time)["report.html"]).text.split())
    assert "Nothing was judged, of 9 held-out assistant turns: stopped by time." in text
    unread = nothing | {"stopped_by": None, "not_judged": {"turns": 9, "why": f"a form: {EVIL}"}}
    text = " ".join(Page(a_report(evaluation=unread)["report.html"]).text.split())
    assert "Not judged: 9 held-out turns; a form: " in text
    assert "Nothing was judged, of 9 held-out assistant turns." in text


def test_calls_are_laid_out_and_differences_marked() -> None:
    said = '<tool_call>{"name": "weather", "arguments": {"city": "%s"}}</tool_call>'
    shown = dict(view({"expected": said % "Oslo", "adapter": said % "Rome"})["sides"])
    assert '\n    "city": "Oslo"' in shown["expected"].unescape()
    assert "<mark>Rome</mark>" in shown["adapter"]
    assert "weather</mark>" not in shown["adapter"]


_DRAW = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from job.plots import loss_curve_svg
from job.plots.series import scientific
sys.stdout.buffer.write(loss_curve_svg([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], []))
"""


def test_no_home_to_write_to_is_no_reason_to_fail_or_to_warn(tmp_path: Path) -> None:
    """As in the image: an unknown user, and a root file system that is read-only."""
    no_folder = tmp_path / "file"
    no_folder.touch()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _DRAW],
        env=kept | {"HOME": str(no_folder / "home"), "TMPDIR": str(tmp_path)},
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.startswith(b"<svg")
    assert done.stderr == b""


def test_a_loss_that_is_not_finite_is_marked() -> None:
    svg = loss_curve_svg([*HISTORY, {"step": 4, "loss": math.inf}], [])
    assert svg is not None
    assert b"the loss of step 2 is nan" in svg
    assert b"the loss of step 4 is inf" in svg


@pytest.mark.parametrize(
    ("value", "told"), [(2e-4, "2e-4"), (1.5e-4, "1.5e-4"), (0.0, "0"), (-3e-10, "-3e-10")]
)
def test_small_numbers_are_told_as_people_write_them(value: float, told: str) -> None:
    assert scientific(value) == told


def test_a_call_that_ends_in_blanks_is_laid_out_all_the_same() -> None:
    """A model may end in line ends that never stop."""
    shown = view(
        {"expected": "", "base": "<tool_call>" + "\n" * 4000, "adapter": " <tool_call> " * 300}
    )
    assert shown["sides"][2][0] == "base"
