"""What a run of any length and size asks of the store, calculated from the requests of real ones.

    python -m benchmarks.fleet.calculated --step-seconds 4 --large-mb 168 84

Measured are the stages of a whole run (results/fleet-run.json) and single events
(results/fleet.json). How large files are, how often a checkpoint is due, how long the run is and
what requests cost are arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parents[1] / "results"
KINDS: Final = ("PUT", "GET", "HEAD", "LIST", "DELETE")
PART_BYTES: Final = 16 * 1024**2
_EVENT: Final = "checkpoint of 3 files, with the end of an older one"
_EVENT_FILES: Final = 3
_EVALUATED: Final = ("evaluation", "publishing", "end")
_WAYS: Final = ("upload", "download")
_BEGUN: Final = ("start", "data", "model")

Requests = Mapping[str, float]


@dataclass(frozen=True)
class Inputs:
    """Of a run; the intervals are the job's defaults."""

    step_seconds: float = 4.0
    hours: float = 1.0
    large_mb: Sequence[float] = (168.0, 84.0)
    """Of a checkpoint's files the large ones: the adapter first, then the optimizer's state."""
    model_gb: float = 5.7
    """Of the base, in a mirror."""
    files: int = 12
    """Of a checkpoint, its manifest left out."""
    save_steps: int = 50
    save_seconds: float = 600.0
    eval_steps: int = 50
    heartbeat_seconds: float = 30.0
    put_price: float = 0.005
    get_price: float = 0.0004


@dataclass(frozen=True)
class Measured:
    run: Mapping[str, Any]
    """results/fleet-run.json."""
    events: Mapping[str, Requests]
    """`per_event` of results/fleet.json."""

    def stages(self, attempt: int, names: Sequence[str]) -> Counter[str]:
        total: Counter[str] = Counter()
        for name in names:
            total.update(self.run["attempts"][attempt]["stages"].get(name, {}))
        return total


def read() -> Measured:
    run, fleet = (_json(name) for name in ("fleet-run", "fleet"))
    return Measured(run, fleet["per_event"])


def _json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def up(size: float) -> int:
    """PUT, and POST at the same price, of a file: its parts, their begin and their end."""
    return 1 if size < PART_BYTES else math.ceil(size / PART_BYTES) + 2


def down(size: float) -> int:
    """GET of a file."""
    return 1 if size < PART_BYTES else math.ceil(size / PART_BYTES)


def saves_an_hour(inputs: Inputs) -> float:
    """By steps or by time, whichever comes first; and a validation loss that is the best so far
    saves, too: each is, at most, and costs nothing more where it falls on a save."""
    period = inputs.save_steps * inputs.step_seconds
    own = math.ceil(period / inputs.save_seconds) * 3600 / period
    if inputs.eval_steps % inputs.save_steps == 0:
        return own
    return own + 3600 / (inputs.eval_steps * inputs.step_seconds)


def checkpoint(measured: Measured, inputs: Inputs) -> Counter[str]:
    """One that ends an older one."""
    found = Counter(measured.events[_EVENT])
    found["PUT"] += inputs.files - _EVENT_FILES
    found["PUT"] += sum(up(size * 1e6) - 1 for size in inputs.large_mb)
    return found


def restore(inputs: Inputs) -> Counter[str]:
    files = inputs.files + 1 - len(inputs.large_mb)
    return Counter(GET=files + sum(down(size * 1e6) for size in inputs.large_mb))


def hourly(measured: Measured, inputs: Inputs) -> dict[str, float]:
    """While it trains."""
    total: Counter[str] = Counter()
    beats, saves = 3600 / inputs.heartbeat_seconds, saves_an_hour(inputs)
    events = ((measured.events["heartbeat"], beats), (checkpoint(measured, inputs), saves))
    for event, times in events:
        for kind, count in event.items():
            total[kind] += round(count * times)
    return dict(total)


def begin_and_end(measured: Measured, inputs: Inputs) -> Counter[str]:
    """Of a run that is never preempted, once: start, data and model, evaluation and publishing.

    What is published is read again to verify it.
    """
    total = measured.stages(0, _BEGUN) + measured.stages(-1, _EVALUATED)
    adapter = inputs.large_mb[0] * 1e6 if inputs.large_mb else 0
    total["PUT"] += up(adapter) - 1
    total["GET"] += down(adapter) - 1 + down(inputs.model_gb * 1e9) - 1
    return total


def whole(measured: Measured, inputs: Inputs) -> dict[str, float]:
    """A run from its start to its end."""
    total: dict[str, float] = dict(begin_and_end(measured, inputs))
    for kind, count in hourly(measured, inputs).items():
        total[kind] = total.get(kind, 0) + round(count * inputs.hours)
    return total


def price(requests: Requests, inputs: Inputs) -> float:
    """PUT and LIST at one price for 1,000, GET and HEAD at another. DELETE is free."""
    dear = requests.get("PUT", 0) + requests.get("LIST", 0) + requests.get("other", 0)
    cheap = requests.get("GET", 0) + requests.get("HEAD", 0)
    return (dear * inputs.put_price + cheap * inputs.get_price) / 1000


def cells(requests: Requests) -> str:
    """A table's, of one line."""
    return " | ".join(f"{requests.get(kind, 0):g}" for kind in KINDS)


def stage_rows(run: Mapping[str, Any]) -> list[tuple[str, Requests]]:
    """The stages of a run's two attempts, as far as they sent anything."""
    rows = []
    for number, attempt in enumerate(run["attempts"], start=1):
        for stage, requests in attempt["stages"].items():
            count = f" ({attempt['checkpoints']})" if stage == "checkpoints" else ""
            rows.append((f"attempt {number}: {stage}{count}", requests))
    return rows


def markdown(run: Mapping[str, Any]) -> str:
    """A whole run for people."""
    files = ", ".join(map(str, run["attempts"][0]["files"]))
    in_parts = run["file_in_parts"]
    rows = stage_rows(run) + [(f"a file of 3 parts: {way}", in_parts[way]) for way in _WAYS]
    return "\n".join(
        [
            f"# Requests of one run, {run['store']} store",
            "",
            (
                "The whole job on a tiny model: preempted once, resumed, published. A checkpoint "
                f"has {files} files and a manifest. No heartbeat fell into it. {run['date']}."
            ),
            "",
            *_table(rows),
            "",
        ]
    )


def _table(rows: Sequence[tuple[str, Requests]]) -> list[str]:
    head = [f"| Requests | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    return head + [f"| {what} | {cells(requests)} |" for what, requests in rows]


def main(argv: Sequence[str] | None = None) -> int:
    measured, inputs = read(), _inputs(argv)
    run = whole(measured, inputs)
    rows: list[tuple[str, Requests]] = [
        ("one checkpoint", checkpoint(measured, inputs)),
        ("its restore", restore(inputs)),
        (f"an hour, {saves_an_hour(inputs):.3g} checkpoints", hourly(measured, inputs)),
        ("begin and end", begin_and_end(measured, inputs)),
        (f"a run of {inputs.hours:g} h", run),
    ]
    print("\n".join([*_table(rows), "", f"${price(run, inputs):.4f} a run, with these prices."]))
    return 0


def _inputs(argv: Sequence[str] | None) -> Inputs:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in vars(Inputs()).items():
        kind, many = (int if isinstance(default, int) else float), isinstance(default, tuple)
        flag, nargs = f"--{name.replace('_', '-')}", "*" if many else None
        parser.add_argument(flag, type=kind, default=default, nargs=nargs)
    return Inputs(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
