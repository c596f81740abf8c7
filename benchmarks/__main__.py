"""Every benchmark, one after the other, and the table of ratios in benchmarks/README.md.

    python -m benchmarks            # all of them: about two hours on 2 cores that do nothing else
    python -m benchmarks startup overhead
    python -m benchmarks --table    # only the table, from the results that are there

`make bench BENCH="startup overhead"` does the same. Each writes its own JSON file with every figure
into benchmarks/results; one that fails is said at the end and leaves its last results alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.headlines import table

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "benchmarks" / "README.md"
RESULTS: Final = ROOT / "benchmarks" / "results"
BEGIN: Final = "<!-- ratios: written by `python -m benchmarks --table` -->"
END: Final = "<!-- /ratios -->"


@dataclass(frozen=True)
class Measure:
    """A benchmark, and the result that the table of ratios reads."""

    result: str
    """Its name in benchmarks/results, without `.json`: a reader in `headlines.READERS`."""
    module: str
    arguments: Sequence[str] = ()

    def command(self) -> list[str]:
        out = str(RESULTS / f"{self.result}.json")
        return [sys.executable, "-m", self.module, *self.arguments, "--out", out]


SUITE: Final[Mapping[str, Measure]] = {
    "startup": Measure("startup", "benchmarks.startup"),
    "commands": Measure("commands", "benchmarks.commands"),
    "overhead": Measure("overhead-smollm2", "benchmarks.overhead"),
    "short-steps": Measure(
        "overhead-tiny", "benchmarks.overhead", ("--model", "tiny", "--steps", "300")
    ),
    "throughput": Measure("throughput-smollm2", "benchmarks.throughput"),
    "growth": Measure("growth", "benchmarks.growth"),
    "data": Measure(
        "data-distinct", "benchmarks.data", ("--shapes", "distinct", "--megabytes", "60")
    ),
    "data-shared": Measure(
        "data-shared", "benchmarks.data", ("--shapes", "shared", "--megabytes", "60")
    ),
    "checkpoint": Measure("checkpoint", "benchmarks.checkpoint", ("--sizes", "33", "250")),
    "goodput": Measure("goodput", "benchmarks.goodput"),
    "evaluation": Measure("evaluation-smollm2", "benchmarks.evaluation"),
    "ranks": Measure("ranks", "benchmarks.ranks"),
    "report": Measure("report", "benchmarks.report"),
    "fleet": Measure("fleet", "benchmarks.fleet"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUITE))
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args(argv)
    if unknown := sorted(set(arguments.names) - SUITE.keys()):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(SUITE)}")
    names = [] if arguments.table else arguments.names or list(SUITE)
    failed = [name for name in names if not _runs(name)]
    README.write_text(refreshed(README.read_text(encoding="utf-8")), encoding="utf-8")
    for name in failed:
        print(f"benchmarks: {name} failed", file=sys.stderr)
    return 1 if failed else 0


def _runs(name: str) -> bool:
    print(f"benchmarks: {name}", file=sys.stderr, flush=True)
    return subprocess.run(SUITE[name].command(), cwd=ROOT).returncode == 0


def refreshed(text: str) -> str:
    """`text` with the table of the results that are there. Raises `ValueError` without a place."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{README.name} has no place for the table: {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{table(RESULTS)}\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
