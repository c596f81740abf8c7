"""Texts quote the figures of the last run of a benchmark, none of an earlier one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.fleet.figures import hourly

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


def test_the_requests_of_an_event_are_the_measured_ones(result: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    events = [*result["per_event"].values(), hourly(result["per_event"])]
    for counts in events:
        cells = [counts.get(name, 0) for name in ("PUT", "GET", "HEAD", "LIST", "DELETE")]
        assert f"| {' | '.join(f'{cell:g}' for cell in cells)} |" in text
    assert f"has {result['series_per_run']} series (measured)" in text
