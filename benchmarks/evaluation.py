"""Held-out answers: the job's batches against `model.generate` for one prompt after the other.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --batches 1    # a first figure in a few minutes

Of the batches that the job would make of all rows, the first few are measured: the job draws their
order, so they are a fair sample; one by one, all of them take hours on a CPU.

Run it from the repository's root on a machine that does nothing else. Writes a JSON file and a
Markdown table beside it. What is measured, and how to read it, is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.machine import machine_now, versions
from benchmarks.models import MODELS, model_and_rows
from benchmarks.output import leave
from job.config import PREFIX, Settings
from job.dataset import ChatFormat, Row, fetch, read_rows
from job.engines import ReferenceEngine

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Timing:
    """One of the job's batches, and the same prompts one by one."""

    prompts: int
    longest_prompt: int
    """Tokens."""
    batched: float
    """Seconds."""
    one_by_one: float
    same_answers: int


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # a setting of whoever runs this must not reach the engine
    os.environ["HF_HUB_OFFLINE"] = "1"
    here = machine_now()
    with tempfile.TemporaryDirectory(prefix="evaluation-") as folder:
        model, rows = _inputs(arguments.model, arguments.rows, Path(folder))
        limit, timings = _measure(model, rows, arguments.batches)
    result = _result(arguments, limit, timings) | {"machine": here, "versions": versions()}
    leave(arguments.out, result, markdown(result))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--rows", type=int, default=512, help="the shortest ones (default: 512)")
    parser.add_argument("--batches", type=int, default=3, help="of them measured (default: 3)")
    parser.add_argument("--out", type=Path, help="the JSON file (default: in benchmarks/results)")
    arguments = parser.parse_args(argv)
    if min(arguments.rows, arguments.batches) < 1:
        parser.error("--rows, --batches: at least 1")
    default = ROOT / "benchmarks" / "results" / f"evaluation-{arguments.model}.json"
    arguments.out = arguments.out or default
    return arguments


def _inputs(model: str, count: int, folder: Path) -> tuple[Path, list[Row]]:
    """The model, and its shortest rows."""
    path = folder / "rows.jsonl"
    made = model_and_rows(model, folder, path, shortest=count)
    rows = list(read_rows(fetch([str(path)], folder / "data")))
    return made, [row for row in rows if isinstance(row, Row)]


def _measure(folder: Path, rows: Sequence[Row], count: int) -> tuple[int, list[Timing]]:
    """Tokens an answer may have, and a timing of each batch. Both sides have the same weights,
    dense on a CPU, and the same limits: what differs is the batching alone."""
    from job.evaluation.evaluate import Plan
    from job.evaluation.generate import generating
    from job.evaluation.reading import read_turns

    settings = Settings(run_id="evaluation", dataset_uri="/none", output_uri="/none")
    engine = ReferenceEngine()
    loaded = engine.load(folder, settings.hyperparameters())
    chat = ChatFormat.load(folder)
    plan = Plan(loaded.tokenizer, chat, read_turns(chat, rows))
    with engine.generating(loaded.model), generating(loaded.model, loaded.tokenizer):
        _answers(loaded, plan, [[0]])  # what only the first call costs
        return plan.max_new_tokens, list(_timings(loaded, plan, plan.batches[:count]))


def _timings(loaded: Any, plan: Any, batches: Sequence[list[int]]) -> Iterator[Timing]:
    """In turns, and who is first changes, so that a drift of the machine's speed cancels."""
    for number, batch in enumerate(batches):
        sides = {"together": [batch], "one by one": [[turn] for turn in batch]}
        found = {}
        for name in sides if number % 2 == 0 else reversed(sides):
            began = time.monotonic()
            answers = _answers(loaded, plan, sides[name])
            found[name] = (time.monotonic() - began, answers)
        (batched, ours), (one_by_one, theirs) = found["together"], found["one by one"]
        same = sum(a == b for a, b in zip(ours, theirs, strict=True))
        longest = max(len(plan.tokens[turn]) for turn in batch)
        yield Timing(len(batch), longest, batched, one_by_one, same)
        _say(f"{len(batch)} prompts: {batched:.1f} s together, {one_by_one:.1f} s one by one")


def _answers(loaded: Any, plan: Any, batches: Sequence[Sequence[int]]) -> list[Any]:
    from job.evaluation.generate import generate

    made = []
    for batch in batches:
        prompts = [plan.tokens[turn] for turn in batch]
        made += (
            generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=plan.max_new_tokens)
            or []
        )
    return made


def _result(arguments: argparse.Namespace, limit: int, timings: Sequence[Timing]) -> dict[str, Any]:
    batched = sum(timing.batched for timing in timings)
    one_by_one = sum(timing.one_by_one for timing in timings)
    prompts = sum(timing.prompts for timing in timings)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "setup": {"model": arguments.model, "rows": arguments.rows, "max_new_tokens": limit},
        "prompts": prompts,
        "batched_seconds": batched,
        "one_by_one_seconds": one_by_one,
        "ratio": one_by_one / batched,
        "median_ratio": median(timing.one_by_one / timing.batched for timing in timings),
        "same_answers": sum(timing.same_answers for timing in timings) / prompts,
        "batches": [asdict(timing) for timing in timings],
    }


def markdown(result: dict[str, Any]) -> str:
    setup = result["setup"]
    title = f"{result['prompts']} held-out turns, {setup['model']}, {result['date']}"
    limit = f"up to {setup['max_new_tokens']} tokens an answer"
    seconds = [f"{result[name]:.1f} s" for name in ("batched_seconds", "one_by_one_seconds")]
    ratios = [f"{result[name]:.2f}" for name in ("ratio", "median_ratio")]
    cells = [str(len(result["batches"])), *seconds, *ratios, f"{result['same_answers']:.1%}"]
    return (
        f"{title}, {limit}\n\n"
        "| Batches | Together | One by one | Ratio | Median ratio | Same answers |\n"
        "|---|---|---|---|---|---|\n"
        f"| {' | '.join(cells)} |\n"
    )


def _say(text: str) -> None:
    print(f"evaluation: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
