"""From what the stages have left to one JSON object and one table, with verdicts on the goals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.shapes import SHAPES
from job.memory import GIB, Shape, estimate
from job.profiles import PROFILES, Hyperparameters

OVERHEAD: Final = 1.01
"""Our step to bare Unsloth's, at most."""
FASTER: Final = 1.8
"""Supervised tokens a second to TRL's, at least."""
PEAK: Final = 0.5
"""Peak memory to TRL's, at most."""
DURABLE_SECONDS: Final = 5.0

DRY: Final = (
    "**A dry run on a CPU with tiny models: no figure below says anything about a GPU.** It shows "
    "that every stage runs."
)


def collect(out: Path) -> dict[str, Any]:
    """All measurements in a folder, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}


def markdown(facts: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    dry = facts["device"] == "cpu"
    lines = ["# GPU suite", "", *([DRY, ""] if dry else []), *_facts(facts), ""]
    lines += list(_outcomes(found))
    for shape in SHAPES:
        for profile in PROFILES:
            sides = _sides(found, shape, profile)
            if sides:
                lines += ["", *_speed(shape, profile, sides, dry=dry)]
    return "\n".join([*lines, ""])


def _facts(facts: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
    return [f"{facts['date']}, {facts['name']}, driver {facts['driver']}. {versions}."]


def _outcomes(found: Mapping[str, Any]) -> Iterator[str]:
    for name, values in found.items():
        if "failed" in values:
            yield f"- **{name} failed**: {values['failed']}"
    if "summary" in (contract := found.get("contract", {})):
        yield f"- contract tests: {contract['summary']}"
    job = found.get("job", {})
    if "stopped" in job:
        stopped = job["stopped"]
        yield (
            f"- the job: {job['status']}, resumed from step {job['resumed_from']}, "
            f"{_drift(job['resume_drift'])}, gate {job['gate']}"
        )
        text = f"SIGTERM to durable, s ({stopped['megabytes']:.0f} MB)"
        yield "- " + _verdict(text, stopped["durable"], most=DURABLE_SECONDS)
        yield f"- a checkpoint's write, while training waits: {job['pace']['write_seconds']:.3f} s"


def _drift(drift: float | None) -> str:
    """None where it was stopped before the step's first micro-batch: nothing was recorded yet."""
    if drift is None:
        return "no loss to compare"
    return f"the first loss within {drift:.1e} of the recorded one"


def _sides(found: Mapping[str, Any], shape: str, profile: str) -> dict[str, Any]:
    names = {side: f"speed-{shape}-{profile}-{side}" for side in ("job", "unsloth", "trl")}
    names["job again"] = names["job"] + "-again"
    return {
        side: found[name]
        for side, name in names.items()
        if name in found and "failed" not in found[name]
    }


def _speed(shape: str, profile: str, sides: Mapping[str, Any], *, dry: bool) -> Iterator[str]:
    yield f"## {shape}, {profile}"
    yield ""
    yield "| side | step s | supervised tokens/s | peak GiB | first step after s |"
    yield "| --- | --- | --- | --- | --- |"
    for side, values in sides.items():
        yield (
            f"| {side} | {values['step_seconds']:.3f} | "
            f"{values['supervised_tokens_per_second']:.0f} | {values['peak_bytes'] / GIB:.2f} | "
            f"{values['first_step_seconds']:.1f} |"
        )
    if not dry:
        yield ""
        yield from _verdicts(shape, sides)


def _verdicts(shape: str, sides: Mapping[str, Any]) -> Iterator[str]:
    job, unsloth, trl = (sides.get(side) for side in ("job", "unsloth", "trl"))
    if job and unsloth:
        ratio = job["step_seconds"] / unsloth["step_seconds"]
        yield "- " + _verdict("step to bare Unsloth's", ratio, most=OVERHEAD)
    if job and trl:
        ratio = job["supervised_tokens_per_second"] / trl["supervised_tokens_per_second"]
        yield "- " + _verdict("supervised tokens a second to TRL's", ratio, least=FASTER)
        yield "- " + _verdict("peak to TRL's", job["peak_bytes"] / trl["peak_bytes"], most=PEAK)
    if job and (model := Shape.of(SHAPES[shape])):
        predicted = estimate(model, Hyperparameters(**job["hyperparameters"])).total
        error = predicted / job["peak_bytes"] - 1
        yield f"- predicted peak {predicted / GIB:.2f} GiB, off by {error:+.0%}"


def _verdict(
    text: str, value: float, *, most: float | None = None, least: float | None = None
) -> str:
    met = (most is None or value <= most) and (least is None or value >= least)
    goal = f"at most {most:g}" if most is not None else f"at least {least:g}"
    return f"{text}: {value:.3f} ({goal}): {'met' if met else 'MISSED'}"
