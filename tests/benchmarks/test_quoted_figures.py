"""Texts quote the figures of the last run of a benchmark, none of an earlier one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.fleet.calculated import (
    Inputs,
    cells,
    checkpoint,
    down,
    price,
    read,
    restore,
    saves_an_hour,
    up,
    whole,
)

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCE: Final = "results/fleet.json"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    raw = (ROOT / "benchmarks" / SOURCE).read_text(encoding="utf-8")
    return dict[str, Any](json.loads(raw))


def quoting(path: str) -> list[list[str]]:
    """The numbers of each paragraph that names the raw file, HTTP's 503 left out."""
    paragraphs = (ROOT / path).read_text(encoding="utf-8").split("\n\n")
    texts = [re.sub(r"\]\(.*?\)", "]", text) for text in paragraphs if SOURCE in text]
    return [[n for n in re.findall(r"\d[\d.,]*\b%?", text) if n != "503"] for text in texts]


def fullest(tenths: list[int]) -> str:
    return f"{max(tenths) / sum(tenths):.0%}"


def cores(result: dict[str, Any]) -> str:
    """Older results have them outside of `machine`."""
    return str(result.get("machine", result)["cores"])


def test_what_scale_does_quotes_the_fleet(result: dict[str, Any]) -> None:
    fleet, runs = result["fleet"], result["setup"]["runs"]
    storm = fleet["storm_requests_by_second"]
    long = next(n for n, count in enumerate(storm) if count < max(storm) / 4)
    mean = sum(storm[:long]) / long
    seconds = f"{fleet['storm_seconds']:g}"
    before, after = (fullest(fleet[f"heartbeats_{when}_storm"]) for when in ("before", "after"))
    beats = [
        f"{runs}",
        before,
        seconds,
        after,
        "10%",
        cores(result),
        f"{fleet['last_start_seconds']:.0f}",
    ]
    retries = [seconds, f"{runs}", f"{sum(storm):,}", f"{sum(storm) / runs:.1f}"]
    retries += [f"{min(storm[:long])}", f"{max(storm[:long])}", f"{long}", f"{mean:.0f}"]
    retries += [f"{count}" for count in storm[long:]]
    retries += [f"{fleet['seconds']}", "4,167", f"{round(4167 / runs * mean, -2):,.0f}"]
    retries += ["4,167", f"{runs}", f"{mean:.0f}"]
    assert quoting("docs/scale.md") == [beats, retries]
    assert fleet["busiest_second"] == max(storm), "the text says so"
    assert fleet["violations"] == [], "the text says so"


def test_the_fleets_own_page_quotes_it(result: dict[str, Any]) -> None:
    fleet, setup = result["fleet"], result["setup"]
    quoted = [cores(result), f"{setup['runs']}", f"{setup['interval']:.0f}", f"{fleet['seconds']}"]
    quoted += [f"{fleet['last_start_seconds']:.0f}"]
    assert quoting("benchmarks/fleet/README.md") == [quoted]


def test_the_requests_of_a_run_are_the_measured_ones(result: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    measured = read()
    begun, ended = (attempt["stages"] for attempt in measured.run["attempts"])
    assert begun["start"] == ended["start"]
    assert begun["end"] == {"PUT": 1}, "of a preempted one the record is closed"
    rows = {
        "start of an attempt, with the probe for conditional writes": begun["start"],
        "its data (1 file) and the tokenizer (5 files)": begun["data"],
        "the same of the next attempt, on the same work volume": ended["data"],
        "the base (1 file)": begun["model"],
        "5 checkpoints of 12 files, with the end of 2 older ones": begun["checkpoints"],
        "restore of one": ended["restore"],
        "evaluation": ended["evaluation"],
        "adapter, report and record": ended["publishing"],
        "end": ended["end"],
        "heartbeat (every 30 s; none fell into that run)": result["per_event"]["heartbeat"],
    }
    for what, requests in rows.items():
        assert f"| {what} | {cells(requests)} |" in text
    assert (measured.run["attempts"][0]["checkpoints"], begun["checkpoints"]["DELETE"]) == (5, 2)
    assert measured.run["attempts"][0]["files"] == [Inputs().files] == [12]
    assert result["per_event"]["checkpoint of 3 files, with the end of an older one"]["PUT"] == 5
    assert f"are {10_000 * begun['start']['PUT']:,} PUT" in text
    assert f"has {result['series_per_run']} series (measured)" in text


def test_parts_are_the_measured_ones() -> None:
    measured = read().run["file_in_parts"]
    assert measured["upload"] == {"PUT": up(measured["bytes"])}
    assert measured["download"] == {"GET": down(measured["bytes"])}


def test_what_runs_come_to_is_calculated_from_them() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    measured, inputs = read(), Inputs()
    assert f"a checkpoint is {checkpoint(measured, inputs)['PUT']} PUT" in text
    assert f"its restore {restore(inputs)['GET']} GET" in text
    for seconds in (1.0, 4.0, 12.0):
        each = Inputs(step_seconds=seconds)
        run = whole(measured, each)
        cost = f"{price(run, each):.2g}"
        row = f"| {seconds:g} s | {saves_an_hour(each):g} | {cells(run)} | {cost} |"
        assert row in text
    run = whole(measured, inputs)
    total = sum(run.values())
    assert f"each with {total} / 3600 = {total / 3600:.2f} requests a second" in text
    for runs in (10, 1_000, 100_000):
        second, put = (runs * n / 86400 for n in (total, run["PUT"]))
        day = runs * price(run, inputs)
        row = f"| {_brief(second)} | {_brief(put)} | {_brief(day)} | "
        assert row in text.partition(f"\n| {runs:,} | ")[2].partition("\n")[0], row
    dear = 100_000 * whole(measured, Inputs(step_seconds=1))["PUT"] / 86400
    assert f"with steps of 1 s, {dear:,.0f} PUT a second" in text
    steady = 100_000 * total / 86400
    assert f"is {3700 / steady:.1f} times the steady {steady:,.0f} a second" in text


def _brief(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"
