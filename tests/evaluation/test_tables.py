"""Tables whose names come from the data."""

from __future__ import annotations

from typing import Any

import pytest

from job.dataset import Row
from job.evaluation.calls import Score, score
from job.evaluation.tables import OTHER, by_scenario, by_tool, label
from job.metrics import BuildInfo, Metrics

RIGHT = Score(True, True, True, True, True)
WRONG = Score(True, False, False, False, False)


def row(scenario: Any) -> Row:
    return Row("x", 1, ({"role": "user", "content": "?"},), meta={"scenario": scenario})


def test_scenarios_count_what_is_right_calls_and_refusals() -> None:
    refused = score({"content": "No."}, "Sorry.")
    found = by_scenario([row("a"), row("a"), row("b")], [WRONG] * 3, [RIGHT, refused, WRONG])
    assert found == {
        "a": {"of": 2, "base": 0, "adapter": 2},
        "b": {"of": 1, "base": 0, "adapter": 0},
    }


@pytest.mark.parametrize("scenario", [None, ["a"], {"a": 1}])
def test_what_names_nothing_is_left_out(scenario: Any) -> None:
    assert by_scenario([row(scenario)], None, [RIGHT]) == {}


def test_one_model_alone() -> None:
    assert by_scenario([row(7)], None, [RIGHT]) == {"7": {"of": 1, "base": None, "adapter": 1}}


def test_thousands_of_names_are_summed_up() -> None:
    rows = [row(f"s{i}") for i in range(3000)] + [row("s7")]
    found = by_scenario(rows, [WRONG] * 3001, [RIGHT] * 3001)
    assert len(found) == 51
    assert next(iter(found)) == "s7"
    assert found[OTHER] == {"of": 2950, "base": 0, "adapter": 2950}
    assert list(found)[-1] == OTHER


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("weather", "weather"),
        ("a\nb\x1b[31m", "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m"),
        ("x\udc80\u202ey", "x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}y"),
        ("", "(no name)"),
        ("é" * 200, "é" * 79 + "…"),
        ("x" * 60 + " ghp_" + "aB3dE6gH9j" * 4, "x" * 60 + " ***"),
    ],
)
def test_names_can_be_shown(name: str, shown: str) -> None:
    assert label(name) == shown
    turn = {"tool_calls": [{"function": {"name": name or " ", "arguments": {}}}]}
    assert list(by_tool([turn], [WRONG], [RIGHT])) == [shown]


def test_names_from_the_data_never_become_series() -> None:
    measures = {"exact": {"rate": 0.5}}
    counts = []
    for names in (1, 40):
        metrics = Metrics(BuildInfo("1", "reference", "fast_dev", "m"))
        table = {f"t{i}": {"of": 1, "base": 0, "adapter": 1} for i in range(names)}
        metrics.evaluated(
            {"base": measures, "adapter": measures, "tools": table, "scenarios": table}
        )
        counts.append(sum(len(family.samples) for family in metrics.registry.collect()))
    assert counts[0] == counts[1]
