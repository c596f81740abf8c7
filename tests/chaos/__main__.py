"""The long run: hundreds of kills, and a table of what became of it.

    python -m tests.chaos --kills 300 --seed 1 --out chaos.md

Returns 1 if any promise was broken; the logs of all attempts then stay in --folder.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.runs import VARIANTS, ground, reference, under_fire
from tests.chaos.scenario import Tally

STRIKES = 12
"""Of one run."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the table goes, besides the screen")
    parser.add_argument("--folder", type=Path, help="for logs and work volumes")
    arguments = parser.parse_args(argv)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    tally, began = Tally(), time.monotonic()
    with ground(folder) as place:
        references = {variant: reference(place, variant) for variant in VARIANTS}
        for number, variant in zip(itertools.count(), itertools.cycle(VARIANTS), strict=False):
            if tally.total_kills >= arguments.kills:
                break
            seed = arguments.seed * 10_000 + number
            under_fire(place, variant, references[variant], seed=seed, strikes=STRIKES, tally=tally)
            _say(f"{tally.total_kills} kills, {tally.runs} runs, {len(tally.violations)} broken")
    table = _table(tally, arguments.seed, time.monotonic() - began)
    print(table)
    if arguments.out:
        arguments.out.write_text(table)
    if tally.violations:
        _say(f"logs are in {folder}")
    return 1 if tally.violations else 0


def _table(tally: Tally, seed: int, seconds: float) -> str:
    rows = [
        ("kills", tally.total_kills),
        *((f"– {name}", count) for name, count in sorted(tally.kills.items())),
        *((f"in phase `{name}`", count) for name, count in sorted(tally.phases.items())),
        ("attempts", tally.attempts),
        *((f"ended with {code}", count) for code, count in sorted(tally.codes.items())),
        ("runs", tally.runs),
        ("final adapter and losses identical", f"{tally.identical} of {tally.runs}"),
        ("lost commits", tally.lost_commits),
        ("false completions", tally.false_completions),
        ("broken promises of any kind", len(tally.violations)),
        ("seed", seed),
        ("minutes", f"{seconds / 60:.1f}"),
    ]
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, *(f"\n- {text}" for text in tally.violations), ""])


def _say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
