"""The fuzzer runs for some seconds on every change; and it does find what is planted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.dataset.review.tally import Tally
from job.dataset.rows import check, read
from job.dataset.tokens import encode
from tests.fuzz.cases import Case, Part
from tests.fuzz.fuzz_dataset import Fuzzer, attempt
from tests.fuzz.seeds import malformed_lines

ROOT = Path(__file__).parents[2]
CASES = 500
"""Some 20 seconds."""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # a process of its own: a bad case may kill it
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_nothing_breaks_the_data_stage(tmp_path: Path) -> None:
    given = ["--seed", "3407", "--cases", str(CASES), "--findings", str(tmp_path)]
    ended = python("-m", "tests.fuzz.fuzz_dataset", *given)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{CASES} cases, 0 findings" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def lost(rows: Callable[..., Any]) -> Callable[..., Any]:
    """Every fifth line is skipped."""
    return lambda uri, lines, tools: rows(uri, [line for line in lines if line.number % 5], tools)


def raising(misplaced: Callable[..., Any]) -> Callable[..., Any]:
    def broken(role: str, before: str, index: int) -> Any:
        return {"": misplaced, "user": misplaced, "system": misplaced}[before](role, before, index)

    return broken


def shifted(inside: Callable[..., tuple[int, int]]) -> Callable[..., Any]:
    """Masks begin a token too early."""

    def broken(*given: Any) -> tuple[int, int]:
        first, end = inside(*given)
        return max(first - 1, 0), end

    return broken


def forgotten(as_dict: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """What is kept for a second attempt says that no row was refused."""
    return lambda self: as_dict(self) | {"refused": 0}


@pytest.mark.parametrize(
    ("owner", "name", "plant", "kind"),
    [
        (check, "_misplaced", raising, "KeyError in "),
        (read, "_rows", lost, "lines lost or doubled"),
        (encode, "_inside", shifted, "the mask is another one"),
        (Tally, "as_dict", forgotten, "figures of a second attempt differ"),
    ],
)
def test_a_planted_bug_is_found(
    owner: Any,
    name: str,
    plant: Callable[[Any], Any],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check._order.cache_clear()
    monkeypatch.setattr(owner, name, plant(getattr(owner, name)))
    fuzzer = Fuzzer(tmp_path, minimizing=8)
    fuzzer.run(seed=3407, first=0, cases=20, seconds=None)
    found = [path for failure, path in fuzzer.failures.items() if failure.startswith(kind)]
    assert found, fuzzer.failures
    case = Case.from_json(found[0].read_text())
    failure = attempt(case)
    assert failure is not None
    assert failure.kind.startswith(kind)
    assert len(case.parts) == 1
    assert sum(map(len, case.parts[0].lines)) < 2000, "it was made small"
    assert f"--repeat {found[0]}" in capsys.readouterr().out
    check._order.cache_clear()


def test_a_case_is_made_again_from_its_seed_and_from_its_file() -> None:
    case = Case.made(1, 2)
    assert case == Case.made(1, 2) == Case.from_json(case.to_json())
    assert case != Case.made(1, 3)
    odd = Case((Part((bytes(range(256)),), ".jsonl.gz", b"\r\n", "cut", 0.5),))
    assert Case.from_json(odd.to_json()) == odd


def test_a_case_that_is_kept_is_repeated(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(Case.made(1, 2).to_json())
    ended = python("-m", "tests.fuzz.fuzz_dataset", "--repeat", str(kept))
    assert (ended.returncode, ended.stdout) == (0, "all held\n")


def test_a_case_that_kills_its_process_is_told_from_one_that_does_not() -> None:
    program = (
        "import os\n"
        "from tests.fuzz.cases import Case\n"
        "from tests.fuzz.minimize import dies\n"
        "case = Case.made(1, 2)\n"
        "print(dies(lambda case: os.abort(), case), dies(lambda case: None, case))\n"
    )
    ended = python("-c", program)
    assert ended.stdout == "True False\n", ended.stderr


def test_the_malformed_corpus_is_among_the_seeds() -> None:
    assert len(malformed_lines()) > 100
