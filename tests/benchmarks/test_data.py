"""The benchmark of the data stage: its arithmetic on made-up runs, and one real run, unjudged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.data.corpus import Corpus, write
from benchmarks.data.figures import Run, disagreements, ratios, summary, targets
from benchmarks.data.identical import Compared, compare
from benchmarks.data.plain import BATCH, Plain, batches
from benchmarks.data.sides import PROCESSES, SIDES
from benchmarks.data.table import markdown
from benchmarks.data.text import Vocabulary
from job.dataset import ChatFormat, prepare
from tests.dataset.preparing import options
from tests.dataset.standin import fetched, model_folder

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 1024 * 1024


def made(side: str, seconds: float, case: str = "distinct-hermes", **changes: Any) -> Run:
    run = Run(
        case=case,
        side=side,
        megabytes=100.0,
        rows=10,
        tokens=1000 if side in ("job", "floor") else None,
        seconds=seconds,
        cpu_seconds=seconds / 2,
        parts={"all": seconds},
        peak=300 * MEBIBYTE,
        peak_anonymous=200 * MEBIBYTE,
        others=0.0,
    )
    return replace(run, **changes)


def test_medians_of_times_and_the_worst_of_the_rest() -> None:
    runs = [made("job", 4.0), made("job", 9.0, peak=400, others=0.3), made("job", 5.0)]
    job = summary(runs)["distinct-hermes"]["job"]
    assert (job["seconds"], job["cpu_seconds"]) == (5.0, 2.5)
    assert (job["mb_per_second"], job["mb_per_cpu_second"]) == (20.0, 40.0)
    assert (job["peak"], job["others"]) == (300 * MEBIBYTE, 0.3)


def test_a_ratio_is_how_many_times_as_fast_the_job_is() -> None:
    medians = summary([made("job", 5.0), made("floor", 4.0), made("trl", 12.0)])
    assert ratios(medians["distinct-hermes"]) == {"job / floor": 0.8, "job / trl": 2.4}
    assert ratios({"job": {"seconds": 1.0}}) == {}


def test_targets_are_judged_where_their_sides_were_measured() -> None:
    runs = [
        *(made("job", 5.0), made("floor", 4.0), made("job_checks", 2.5)),
        *(made(side, seconds, "shared-hermes") for side, seconds in (("job", 3.0), ("floor", 4.0))),
    ]
    assert [(item["what"], item["measured"], item["met"]) for item in targets(summary(runs))] == [
        ("job / floor, all text distinct", 0.8, True),
        ("job / floor, shared system turns", pytest.approx(4 / 3), False),
        ("checks, MB a second of a core, distinct", 80.0, False),
    ]


@pytest.mark.parametrize(
    ("job", "found"),
    [
        (made("job", 1.0, compared=5, identical=5), []),
        (made("job", 1.0, compared=5, identical=4), ["1 of 5 rows have other ids"]),
        (made("job", 1.0, tokens=999), ["999 tokens, but the plain way gives 1000"]),
        (made("job", 1.0, rows=9), ["the sides read different numbers of rows"]),
    ],
)
def test_sides_that_made_other_tokens_are_noticed(job: Run, found: list[str]) -> None:
    told = disagreements([job, made("floor", 1.0), made("trl", 1.0, tokens=7)])
    assert told == [f"distinct-hermes: {text}" for text in found]


@pytest.fixture
def words() -> Vocabulary:
    return Vocabulary.of(["Find the price of some nights in Oslo from 20 to 30 or near the sea"])


@pytest.mark.parametrize("dialect", ["hermes", "openai"])
def test_ids_of_the_whole_text_are_told_from_others(
    tmp_path: Path, words: Vocabulary, dialect: str
) -> None:
    rows, model = tmp_path / "rows.jsonl", model_folder(tmp_path / "model")
    count = write(Corpus("shared", dialect, 0.2), words, rows)
    data = prepare(
        [fetched(rows)],
        ChatFormat.load(model),
        options(max_seq_length=100_000),
        tmp_path / "prepared",
    )
    store = tmp_path / "prepared" / "store"
    assert compare(rows, model, store, 10) == Compared(10, 10)
    assert compare(rows, model, store, 10_000) == Compared(count, count)
    assert sum(len(ids) for ids in _plain_ids(rows, model)) == data.train.store.rows["tokens"].sum()
    shutil.copy(rows, tmp_path / "other.jsonl")
    _change_a_word(tmp_path / "other.jsonl")
    assert compare(tmp_path / "other.jsonl", model, store, 10_000) == Compared(count, count - 1)


def _plain_ids(rows: Path, model: Path) -> list[list[int]]:
    plain = Plain(model)
    return [ids for lines in batches(rows) for ids in plain.ids(lines)]


def _change_a_word(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[3])
    row["messages"][-1]["content"] += " More."
    lines[3] = json.dumps(row) + "\n"
    path.write_text("".join(lines))


def test_batches_are_bounded_and_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(BATCH * 2 + 1)))
    found = list(batches(path))
    assert list(map(len, found)) == [BATCH, BATCH, 1]
    assert np.array_equal([int(line) for lines in found for line in lines], range(BATCH * 2 + 1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shapes", "round"], "'round' is not one of distinct, shared"),
        (["--sides", "job,other"], "'other' is not one of job, job_checks, floor, trl"),
        (["--megabytes", "0"], "must be positive"),
        (["--memory", "-1"], "must be positive"),
        (["--repeat", "0"], "must be positive"),
    ],
)
def test_a_bad_argument_is_refused_at_once(arguments: list[str], said: str) -> None:
    done = benchmark(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_a_real_run_leaves_a_result(tmp_path: Path) -> None:
    out = tmp_path / "new" / "data.json"
    sizes = ["--megabytes", "0.5", "--memory", "0.3", "--folder", str(tmp_path)]
    done = benchmark(*sizes, "--shapes", "shared", "--profile", "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["disagreements"] == []
    case = result["cases"]["shared-hermes"]
    assert (case["compared"], case["identical"]) == (case["rows"], case["rows"])
    by_side: Mapping[str, Any] = {run["side"]: run for run in result["runs"]}
    assert by_side.keys() == SIDES.keys()
    assert by_side["job"]["tokens"] == by_side["floor"]["tokens"] == by_side["trl"]["tokens"] > 0
    assert {run["rows"] for run in by_side.values()} == {case["rows"]}
    assert all(run["seconds"] > 0 and run["cpu_seconds"] > 0 for run in by_side.values())
    assert all(run["peak"] > 20 * MEBIBYTE for run in (*by_side.values(), *result["memory"]))
    assert [run["megabytes"] for run in result["memory"]] == [pytest.approx(0.3, abs=0.01)]
    assert result["machine"]["threads"] == PROCESSES
    text = out.with_suffix(".md").read_text()
    assert text == markdown(result)
    assert text in done.stdout
    profile = out.with_name("data-shared-hermes-profile.txt").read_text()
    assert "encode_batch" in profile
    assert "scan.py" in profile
    assert list(tmp_path.iterdir()) == [out.parent]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with a setting in its environment that must not reach the job."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.data", *arguments],
        cwd=ROOT,
        env={**os.environ, "FORGE_NO_SUCH_SETTING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
