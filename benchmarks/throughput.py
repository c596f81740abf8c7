"""Training on a CPU: a plain TRL script, the same with one lever after the other, and the job.

    python -m benchmarks.throughput

Each side is a process of its own, with the same rows, order, hyperparameters and seed; all sides
take turns, forwards and backwards. Writes a JSON file and a Markdown table beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from benchmarks.figures import Record
from benchmarks.machine import described, machine_now, versions
from benchmarks.output import leave
from benchmarks.sides import BATCH, Bench, parsed, run_bare, run_job, served
from job.engines.dense import cpu_has_bf16

LEVERS: Final[dict[str, dict[str, Any]]] = {
    "TRL's defaults": {
        # Emulated bf16, TRL's default on any CPU, is not what anybody would stay with.
        "precision": {"use_cpu": True, "bf16": cpu_has_bf16()},
        "dense": False,
    },
    "no gradient checkpointing": {"dense": False},
    "weights de-quantized once": {},
}
"""What the bare script gets, each with those above it."""
JOB: Final = "the job"
PLAIN: Final = next(iter(LEVERS))
SAME_LOSS: Final = 6e-2 if cpu_has_bf16() else 1e-3
"""Relative, after some steps of products rounded in another order. In bf16 that is more: there the
plain script itself was 7% from what it computes in fp32."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 where the sides did not compute the same losses."""
    arguments = parsed(argv, __doc__, "throughput", steps=8, turns=("rounds", 2))
    facts = machine_now()
    with served(arguments.model, arguments.steps) as bench:
        rounds = [_round(bench, number) for number in range(arguments.rounds)]
    apart = {side: _apart(rounds[0][PLAIN], rounds[0][side]) for side in rounds[0]}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": facts,
        "versions": versions(),
        "setup": {
            "model": arguments.model,
            "steps": bench.steps,
            "batch": BATCH,
            "mean_tokens": bench.mean_tokens,
            "bf16": cpu_has_bf16(),
            "rounds": len(rounds),
        },
        "step_seconds": {side: _step_seconds(rounds, side) for side in rounds[0]},
        "losses_apart": apart,
        "same_losses": max(apart.values()) <= SAME_LOSS,
    }
    leave(arguments.out, result, markdown(result))
    return 0 if result["same_losses"] else 1


def _round(bench: Bench, number: int) -> dict[str, Record]:
    """One run of each, in the order of `LEVERS`; every other round begins at the end."""
    sides = [*LEVERS, JOB]
    found = {}
    for side in sides if number % 2 == 0 else reversed(sides):
        name = f"{number}-{sides.index(side)}"
        found[side] = (
            run_job(bench, f"job-{name}")
            if side == JOB
            else run_bare(bench, f"bare-{name}", **LEVERS[side])
        )
    return {side: found[side] for side in sides}


def _step_seconds(rounds: Sequence[Mapping[str, Record]], side: str) -> float:
    """The median of all compared steps."""
    return median(s for found in rounds for s in found[side].durations().values())


def _apart(plain: Record, other: Record) -> float:
    """The largest relative difference of two losses of a step."""
    return max(abs(other.losses[step] - loss) / abs(loss) for step, loss in plain.losses.items())


def markdown(result: Mapping[str, Any]) -> str:
    setup, seconds = result["setup"], result["step_seconds"]
    setting = (
        f"{setup['steps']} steps of {setup['batch']} rows ({setup['mean_tokens']:.0f} tokens on "
        f"average), {setup['rounds']} rounds, in {'bf16' if setup['bf16'] else 'fp32'}. "
        f"{described(result['machine'])}."
    )
    lines = [
        f"# Training on a CPU: {setup['model']}, {result['date']}",
        "",
        setting,
        "",
        "| side | seconds a step | rate to the plain script | losses apart |",
        "| --- | ---: | ---: | ---: |",
    ]
    for side, step in seconds.items():
        rate, apart = seconds[PLAIN] / step, result["losses_apart"][side]
        lines.append(f"| {side} | {step:.2f} | {rate:.2f} | {apart:.1e} |")
    return "\n".join(
        [*lines, "", f"Each line has what stands above it. Losses: {_verdict(result)}."]
    )


def _verdict(result: Mapping[str, Any]) -> str:
    return "the same but for rounding" if result["same_losses"] else "**not the same**"


if __name__ == "__main__":
    sys.exit(main())
