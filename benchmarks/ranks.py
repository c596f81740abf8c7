"""What it costs that two ranks agree on a stop at every micro-batch, beside two that don't.

    python -m benchmarks.ranks

Run it from the repository's root on a machine that does nothing else. Writes a JSON file and a
Markdown table beside it. What is measured, and how to read it, is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn

from benchmarks.machine import machine_now, versions
from benchmarks.output import leave
from job.config import PREFIX
from job.lifecycle import StopToken
from job.ranks import Ranks, own_place
from job.ranks.node import Node, free_port

ROOT: Final = Path(__file__).resolve().parent.parent
RANKS: Final = 2
ACCUMULATION: Final = 4
EXCHANGES: Final = 2000
SHORT_MILLISECONDS: Final = 100
"""A micro-batch on a GPU takes so long or longer."""


@dataclass(frozen=True)
class Pair:
    """Micro-batches a second of each rank, with the agreement and without."""

    agreeing: float
    deaf: float


class Deaf:
    """Keeps `job.ranks.Ranks`: takes itself for all of them, so that nothing is sent for a stop."""

    def __init__(self, group: Ranks) -> None:
        self.rank, self.size = group.rank, group.size
        self._group = group

    def all_gather(self, *values: int) -> list[tuple[int, ...]]:
        return [values] * self.size

    def gather(self, data: bytes) -> list[bytes]:
        return self._group.gather(data)

    def broadcast(self, value: int, waiting: Callable[[], None]) -> int:
        return self._group.broadcast(value, waiting)

    @contextmanager
    def explained(self) -> Iterator[None]:
        with self._group.explained():
            yield


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    if arguments.found is not None:
        _rank(arguments.steps, arguments.pairs, arguments.found)
        return 0
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # a setting of whoever runs this must not reach the training
    here = machine_now()
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        found = _of_both(arguments, Path(folder))
    result = _result(arguments, found) | {"machine": here, "versions": versions()}
    leave(arguments.out, result, markdown(result))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=30, help="of each training (default: 30)")
    parser.add_argument("--pairs", type=int, default=6, help="of trainings (default: 6)")
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)  # where a rank writes to
    default = ROOT / "benchmarks" / "results" / "ranks.json"
    parser.add_argument("--out", type=Path, default=default, help="the JSON file")
    arguments = parser.parse_args(argv)
    if min(arguments.steps, arguments.pairs) < 1:
        parser.error("--steps and --pairs: at least 1")
    return arguments


def _of_both(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What rank 0 measured; the other one takes part."""
    from tests.tiny import build_model

    build_model(folder / "model")
    node = Node(1, RANKS, 0, "127.0.0.1", free_port())
    command = [sys.executable, "-m", "benchmarks.ranks", f"--found={folder / 'found.json'}"]
    command += [f"--steps={arguments.steps}", f"--pairs={arguments.pairs}"]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env={**os.environ, **node.environment(number)})
        for number in range(RANKS)
    ]
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit(f"the ranks ended with {codes}")
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def _rank(steps: int, pairs: int, out: Path) -> None:
    from job.ranks.group import join

    place = own_place(os.environ)
    if place is None:
        raise SystemExit("a rank is started by the benchmark itself")
    group = join(place, StopToken(), _leave, join_seconds=120, timeout_seconds=60)
    group.form()
    exchange = _seconds_of_an_exchange(group)
    timings = [asdict(pair) for pair in _timings(group, steps, pairs, out.parent)]
    group.trained()
    group.close()
    if place.rank == 0:
        out.write_text(json.dumps({"exchange_seconds": exchange, "pairs": timings}))


def _leave(cause: BaseException) -> NoReturn:
    print(f"ranks: {cause}", file=sys.stderr)
    os._exit(1)


def _seconds_of_an_exchange(group: Ranks) -> float:
    taken = []
    for _ in range(EXCHANGES):
        began = time.perf_counter()
        group.all_gather(0)
        taken.append(time.perf_counter() - began)
    return median(taken)


def _timings(group: Ranks, steps: int, pairs: int, folder: Path) -> Iterator[Pair]:
    """In turns, and who is first changes, so that a drift of the machine's speed cancels."""
    from tests.training.runs import made_data

    data = made_data(folder / f"data-{group.rank}")
    sides: dict[str, Ranks] = {"agreeing": group, "deaf": Deaf(group)}
    _rate(sides["deaf"], data, 2, folder)  # what only the first training costs
    for number in range(pairs):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        pair = Pair(**{name: _rate(sides[name], data, steps, folder) for name in order})
        yield pair
        if group.rank == 0:
            said = f"{pair.agreeing:.2f} micro-batches/s agreeing, {pair.deaf:.2f} without"
            print(f"ranks: {said}", file=sys.stderr, flush=True)


def _rate(ranks: Ranks, data: Any, steps: int, folder: Path) -> float:
    """Micro-batches a second of one training of the tests' two-layer model, nothing but steps."""
    from tests.training.runs import run

    with tempfile.TemporaryDirectory(dir=folder) as output:
        outcome = run(
            folder / "model",
            data,
            Path(output),
            ranks=ranks,
            max_steps=steps,
            eval_steps=10 * steps,
            save_steps=10 * steps,
            gradient_accumulation_steps=ACCUMULATION,
        )
    seconds = sum(step.seconds for step in outcome.seen.steps[1:]) or float("nan")
    return (steps - 1) * ACCUMULATION / seconds


def _result(arguments: argparse.Namespace, found: dict[str, Any]) -> dict[str, Any]:
    pairs = [Pair(**pair) for pair in found["pairs"]]
    exchange = found["exchange_seconds"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "setup": {"ranks": RANKS, "accumulation": ACCUMULATION, "steps": arguments.steps},
        "agreeing": median(pair.agreeing for pair in pairs),
        "deaf": median(pair.deaf for pair in pairs),
        "ratio": median(pair.agreeing / pair.deaf for pair in pairs),
        "exchange_seconds": exchange,
        "share_of_a_short_micro_batch": exchange * 1000 / SHORT_MILLISECONDS,
        "pairs": found["pairs"],
    }


def markdown(result: dict[str, Any]) -> str:
    setup = result["setup"]
    cells = [f"{result[name]:.2f}" for name in ("agreeing", "deaf")]
    cells.append(f"{result['ratio']:.3f}")
    cells.append(f"{1e6 * result['exchange_seconds']:.0f} µs")
    cells.append(f"{result['share_of_a_short_micro_batch']:.2%}")
    return (
        f"{setup['ranks']} ranks over gloo on one machine, two-layer model, "
        f"{len(result['pairs'])} pairs of {setup['steps']} steps, {result['date']}\n\n"
        "| Micro-batches/s, agreeing | without | Ratio | One exchange, idle "
        f"| of {SHORT_MILLISECONDS} ms |\n"
        "|---|---|---|---|---|\n"
        f"| {' | '.join(cells)} |\n"
    )


if __name__ == "__main__":
    sys.exit(main())
