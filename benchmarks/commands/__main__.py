"""What `validate`, `status` and `status --all` cost as whole processes, beside naive scripts.

    python -m benchmarks.commands

pytest-benchmark times them; its raw rounds are in the JSON file. Method: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.commands.place import Place, place
from benchmarks.machine import machine_now, versions
from benchmarks.models import MODELS
from benchmarks.output import leave

ROOT: Final = Path(__file__).resolve().parents[2]
ROUNDS: Final = 5
RUNS: Final = 400
NAMES: Final = ("status", "status --all", "validate")
SECONDS: Final = {"status": 0.5, "validate": 0.5}
"""At most, by the median."""


class _Given:
    """A plugin of pytest: the one fixture that the timed commands need."""

    def __init__(self, found: Place) -> None:
        self._found = found

    @pytest.fixture
    def place(self) -> Place:
        return self._found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each ({ROUNDS})")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"in the store ({RUNS})")
    parser.add_argument("--only", choices=NAMES, help="time this one and its naive script")
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    default = ROOT / "benchmarks" / "results" / "commands.json"
    parser.add_argument("--out", type=Path, default=default, help="the JSON file")
    arguments = parser.parse_args(argv)
    facts = machine_now()
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        del os.environ[name]  # of the tests that run this: nothing is timed in their workers
    with place(arguments.model, arguments.runs, arguments.rounds, ROOT) as found:
        timed = _timed(found, arguments.only)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions() | {"pytest-benchmark": version("pytest-benchmark")},
        "model": arguments.model,
        "runs": arguments.runs,
        "commands": timed,
        "ratios": ratios(timed),
    }
    leave(arguments.out, result, markdown(result))
    return 0


def _timed(found: Place, only: str | None) -> dict[str, dict[str, Any]]:
    """What pytest-benchmark found of each command, in seconds. Raises `SystemExit`."""
    with tempfile.TemporaryDirectory(prefix="commands-") as folder:
        raw = Path(folder) / "raw.json"
        timed = str(Path(__file__).with_name("timed.py"))
        # Not with the settings of the tests, which leave the plugin out.
        options = ["-q", "-c", str(ROOT / "benchmarks" / "commands" / "pytest.ini")]
        options += ["--rootdir", str(ROOT), "-p", "no:cacheprovider", "--benchmark-quiet"]
        cases = [f"{timed}::test_command[{name}]" for name in (only, f"{only}, naive")]
        chosen = cases if only else [timed]
        code = pytest.main([*options, f"--benchmark-json={raw}", *chosen], [_Given(found)])
        if code:
            raise SystemExit(f"pytest ended with {code}")
        benchmarks = json.loads(raw.read_text())["benchmarks"]
    wanted = ("median", "min", "max", "stddev", "rounds", "data")
    return {
        case["params"]["name"]: {name: case["stats"][name] for name in wanted}
        for case in benchmarks
    }


def ratios(timed: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Medians of commands to those of their naive counterparts."""
    return {
        name: round(stats["median"] / timed[f"{name}, naive"]["median"], 3)
        for name, stats in timed.items()
        if f"{name}, naive" in timed
    }


def markdown(result: Mapping[str, Any]) -> str:
    about = (
        f"{result['date']}, {result['model']}, {result['runs']} runs in the store; medians of "
        f"whole processes, timed by pytest-benchmark {result['versions']['pytest-benchmark']}."
    )
    lines = ["# What commands cost", "", about, "", *_rows(result["commands"]), ""]
    for name, ratio in result["ratios"].items():
        lines.append(f"- `{name}` to the naive script: {ratio:.2f}")
    for name, most in SECONDS.items():
        if name not in result["commands"]:
            continue
        seconds = result["commands"][name]["median"]
        verdict = "met" if seconds <= most else "MISSED"
        lines.append(f"- `{name}`: {seconds:.2f} s (at most {most}): {verdict}")
    return "\n".join([*lines, ""])


def _rows(timed: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield from ("| command | median s | min s | max s |", "| --- | ---: | ---: | ---: |")
    for name, stats in timed.items():
        yield f"| {name} | {stats['median']:.3f} | {stats['min']:.3f} | {stats['max']:.3f} |"


if __name__ == "__main__":
    sys.exit(main())
