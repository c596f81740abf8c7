"""The promotion gate at, above and below its thresholds."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.config import Settings
from job.errors import SettingsError
from job.evaluation.intervals import wilson
from job.ledger import RunRecord
from job.promotion.gate import PASSED, Gate, Names, verdict_of_finished


def evaluation(base: float, adapter: float) -> dict[str, Any]:
    return {"base": {"exact": {"rate": base}}, "adapter": {"exact": {"rate": adapter}}}


@pytest.mark.parametrize("result", [None, {}, evaluation(1, 0)])
def test_no_gate_is_set(result: dict[str, Any] | None) -> None:
    assert Gate().verdict(result) is None


@pytest.mark.parametrize(
    "result", [None, {}, {"base": {}, "adapter": {}}, {"base": {}, "adapter": {"refusal": {}}}]
)
@pytest.mark.parametrize(("exact", "gain"), [(0.0, None), (None, -1.0), (0.0, -1.0)])
def test_a_gate_without_anything_to_judge_by_fails(
    result: dict[str, Any] | None, exact: float | None, gain: float | None
) -> None:
    verdict = Gate(exact, gain).verdict(result)
    assert verdict == "not applicable: no held-out tool calls to judge by"
    assert verdict != PASSED


@pytest.mark.parametrize(
    ("base", "adapter", "exact", "gain"),
    [
        (0.0, 0.5, 0.5, None),
        (0.0, 0.9, 0.5, None),
        (0.2, 0.5, None, 0.2),
        (0.2, 0.5, None, -0.5),
        (0.5, 0.4, None, -0.2),
        (0.0, 0.8, 0.5, 0.5),
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0, 0.0),
    ],
)
def test_it_passes(base: float, adapter: float, exact: float | None, gain: float | None) -> None:
    assert Gate(exact, gain).verdict(evaluation(base, adapter)) is None


@pytest.mark.parametrize(
    ("base", "adapter", "exact", "gain", "why"),
    [
        (0.0, 0.4, 0.5, None, "exactly right 40.0%, FORGE_GATE_MIN_EXACT is 50.0%"),
        (0.4, 0.5, None, 0.2, "gain over the base +10.0%, FORGE_GATE_MIN_GAIN is +20.0%"),
        (0.5, 0.4, None, 0.0, "gain over the base -10.0%, FORGE_GATE_MIN_GAIN is +0.0%"),
        (
            0.5,
            0.4,
            0.6,
            0.1,
            (
                "exactly right 40.0%, FORGE_GATE_MIN_EXACT is 60.0%; "
                "gain over the base -10.0%, FORGE_GATE_MIN_GAIN is +10.0%"
            ),
        ),
        (0.9, 0.8, 0.5, 0.1, "gain over the base -10.0%, FORGE_GATE_MIN_GAIN is +10.0%"),
    ],
)
def test_it_fails_and_says_by_how_much(
    base: float, adapter: float, exact: float | None, gain: float | None, why: str
) -> None:
    assert Gate(exact, gain).verdict(evaluation(base, adapter)) == why


@pytest.mark.parametrize("gate", [Gate(math.nan), Gate(None, math.nan), Gate(0.5), Gate(None, 0.1)])
def test_what_is_no_number_is_no_pass(gate: Gate) -> None:
    found = math.nan if not math.isnan(gate.min_exact or gate.min_gain or 0) else 1.0
    assert gate.verdict(evaluation(0.0, found)) is not None


def test_thresholds_are_named_as_they_were_given() -> None:
    names = Names("--min-exact", "--min-gain", "--seconds")
    assert Gate(0.9, 0.5, names=names).verdict(evaluation(0.4, 0.5)) == (
        "exactly right 50.0%, --min-exact is 90.0%; gain over the base +10.0%, --min-gain is +50.0%"
    )
    nothing = {"base": {}, "adapter": {}, "stopped_by": "seconds"}
    assert "--seconds was over" in str(Gate(0.9, names=names).verdict(nothing))


@given(st.integers(1, 100), st.data())
def test_a_gain_of_just_the_threshold_passes(rows: int, data: st.DataObject) -> None:
    """0.7 - 0.6 is 0.09999999999999998: the people who set 0.1 mean one row in ten."""
    base = data.draw(st.integers(0, rows))
    right = data.draw(st.integers(base, rows))
    gain = round((right - base) / rows, 12)
    result = evaluation(base / rows, right / rows)
    assert Gate(None, gain).verdict(result) is None
    assert Gate(right / rows, gain).verdict(result) is None
    assert Gate(None, (right - base + 1) / rows).verdict(result) is not None


def judged(right: int, of: int, *, gain: float, gain_low: float) -> dict[str, Any]:
    low, high = wilson(right, of)
    exact = {"rate": right / of, "low": low, "high": high}
    gained = {"rate": gain, "low": gain_low, "high": 1.0}
    base = {"exact": {"rate": right / of - gain}}
    return {"base": base, "adapter": {"exact": exact}, "gain": {"exact": gained}}


def test_on_the_lower_bound_the_same_rate_needs_enough_rows() -> None:
    gate = Gate(min_exact=0.7, on="lower_bound")
    few, many = (judged(8 * n, 10 * n, gain=0.5, gain_low=0.1) for n in (1, 50))
    assert Gate(min_exact=0.7).verdict(few) is None
    assert gate.verdict(few) == (
        "exactly right 80.0%, at least 49.0% with 95% confidence, FORGE_GATE_MIN_EXACT is 70.0%"
    )
    assert gate.verdict(many) is None


def test_on_the_lower_bound_the_gain_has_to_be_sure() -> None:
    found = judged(8, 10, gain=0.5, gain_low=0.1)
    assert Gate(min_gain=0.1, on="lower_bound").verdict(found) is None
    assert Gate(min_gain=0.2, on="lower_bound").verdict(found) == (
        "gain over the base +50.0%, at least +10.0% with 95% confidence, "
        "FORGE_GATE_MIN_GAIN is +20.0%"
    )


def test_time_that_was_over_at_once_is_no_pass() -> None:
    found = {"base": {}, "adapter": {}, "stopped_by": "seconds"}
    assert "FORGE_EVAL_MAX_SECONDS was over" in str(Gate(min_gain=-1).verdict(found))


def test_the_verdict_says_on_how_many_turns_it_rests() -> None:
    found = {"rows": 60, "turns": 200, "adapter": {"exact": {"rate": 0.4, "of": 50}}}
    said = "judged on 50 held-out tool calls"
    assert str(Gate(0.5).verdict(found)).endswith(f"FORGE_GATE_MIN_EXACT is 50.0% ({said})")
    cut = found | {"stopped_by": "seconds"}
    assert Gate(0.3).basis(cut) == f" ({said}; time was over at 60 of 200 turns)"
    assert Gate().basis(found) == Gate(0.3).basis(None) == ""


def test_a_gate_that_no_adapter_can_pass_is_told_early() -> None:
    assert "no held-out row has a tool call" in str(Gate(min_exact=0.1).early_notice(0))
    assert Gate(min_exact=0.1).early_notice(1) is None
    assert Gate().early_notice(0) is None


def test_a_bound_that_so_few_calls_cannot_reach_is_told_early() -> None:
    careful = Gate(min_exact=0.9, on="lower_bound")
    told = str(careful.early_notice(20))
    assert "FORGE_GATE_MIN_EXACT=0.9" in told
    assert "20 held-out tool calls have when all are right, 83.9%" in told
    assert careful.early_notice(35) is None
    told = str(careful.early_notice(40, [call // 8 for call in range(40)]))
    assert "40 held-out tool calls of 5 conversations have when all are right, 56.6%" in told
    assert Gate(min_exact=0.9).early_notice(20) is None, "a share can be 100%"
    assert Gate(min_gain=0.9, on="lower_bound").early_notice(20) is None
    all_right = {"rate": 1.0, "low": wilson(20, 20)[0]}
    assert careful.verdict({"adapter": {"exact": all_right}}), "indeed it does not pass"


def finished(verdict: str, **settings: Any) -> RunRecord:
    """Of a run whose adapter got 40% exactly right, its base 10%."""
    status = "succeeded" if verdict in (PASSED, "not set") else "gate_failed"
    results = {"evaluation": evaluation(0.1, 0.4), "gate": verdict}
    return RunRecord(run_id="r", status=status, results=results, settings=settings)


def asked(**gate: Any) -> Settings:
    return Settings(run_id="r", dataset_uri="/d", output_uri="/o", **gate)


FAILED = "exactly right 40.0%, FORGE_GATE_MIN_EXACT is 90.0%"


@pytest.mark.parametrize(
    ("recorded", "before", "now", "told"),
    [
        ("not set", {}, {"gate_min_exact": 0.9}, "go back to no gate"),
        (PASSED, {"gate_min_exact": 0.3}, {"gate_min_exact": 0.9}, "FORGE_GATE_MIN_EXACT=0.3"),
        (FAILED, {"gate_min_exact": 0.9}, {"gate_min_exact": 0.3}, "now passed"),
        (FAILED, {"gate_min_exact": 0.9}, {}, "now not set"),
    ],
)
def test_a_finished_run_is_not_ended_by_a_gate_it_was_not_held_against(
    recorded: str, before: dict[str, float], now: dict[str, float], told: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        verdict_of_finished(asked(**now), finished(recorded, **before))
    assert told in str(refused.value)
    assert f"then {recorded}" in str(refused.value)
    assert "another FORGE_RUN_ID" in str(refused.value)


def test_a_finished_run_ends_as_before_where_the_outcome_is_the_same() -> None:
    assert verdict_of_finished(asked(), finished("not set")) is None
    assert verdict_of_finished(asked(), finished(PASSED)) is None
    assert verdict_of_finished(asked(gate_min_exact=0.4), finished(PASSED)) is None
    now = verdict_of_finished(asked(gate_min_exact=0.8), finished(FAILED))
    assert now == "exactly right 40.0%, FORGE_GATE_MIN_EXACT is 80.0%"


def test_a_finished_run_without_figures_ends_as_it_did() -> None:
    """Nothing was held out; or another release has recorded less than the gate asks for."""
    nothing = finished("not applicable: no held-out tool calls to judge by")
    nothing.results["evaluation"] = None
    assert verdict_of_finished(asked(gate_min_exact=0.8), nothing) == nothing.results["gate"]
    with pytest.raises(SettingsError, match="now not set"):
        verdict_of_finished(asked(), nothing)
    bound = asked(gate_min_exact=0.8, gate_on="lower_bound")
    assert verdict_of_finished(bound, finished(PASSED)) is None
    del nothing.results["evaluation"]
    assert verdict_of_finished(asked(), nothing) == nothing.results["gate"]


def test_an_adapter_that_would_have_passed_is_said_not_to_be_promoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert verdict_of_finished(asked(gate_min_exact=0.3), finished("not set")) is None
    assert "not promoted" in caplog.text
