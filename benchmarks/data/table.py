"""The result of `benchmarks.data` for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from benchmarks.data.figures import BUSY_CORES, MEBIBYTE, MEMORY_LIMIT
from benchmarks.machine import described

_COLUMNS: Final = ("Side", "Seconds", "MB/s", "CPU s", "MB/s a core", "Peak MiB", "of it anonymous")


def markdown(result: Mapping[str, Any]) -> str:
    lines = ["# Data stage", "", _setting(result), ""]
    for case, sides in result["median"].items():
        lines += [*_case(result, case, sides), ""]
    lines += _targets(result)
    lines += _memory(result)
    lines += [*_doubts(result), ""]
    lines += [", ".join(f"{name} {version}" for name, version in result["versions"].items()) + "."]
    return "\n".join(lines) + "\n"


def _setting(result: Mapping[str, Any]) -> str:
    setup = result["setup"]
    return (
        f"Files of {setup['megabytes']:g} MB, seed {setup['seed']}; SmolLM2's tokenizer, at most "
        f"{setup['max_length']} tokens a row; medians of {setup['repeat']}. "
        f"{described(result['machine'])}. {result['date']}. Imports and the loading of the "
        "tokenizer aren't timed on any side; the memory includes them."
    )


def _case(
    result: Mapping[str, Any], case: str, sides: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    made = result["cases"][case]
    yield f"## {case}: {made['rows']} rows of {made['bytes'] / made['rows']:.0f} bytes"
    yield ""
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|---" * len(_COLUMNS) + "|"
    for side, figures in sides.items():
        cells = [
            f"{figures['seconds']:.1f}",
            f"{figures['mb_per_second']:.1f}",
            f"{figures['cpu_seconds']:.1f}",
            f"{figures['mb_per_cpu_second']:.1f}",
            f"{figures['peak'] / MEBIBYTE:.0f}",
            f"{figures['peak_anonymous'] / MEBIBYTE:.0f}",
        ]
        yield f"| `{side}` | {' | '.join(cells)} |"
    compared = result["ratios"][case]
    if compared:
        yield ""
        yield "; ".join(f"{name} = **{figure:.2f}**" for name, figure in compared.items()) + "."
    if made["compared"]:
        yield ""
        yield (
            f"Of {made['compared']} rows, spread over the file, the job's ids are those of the "
            f"whole text in {made['identical']}."
        )


def _targets(result: Mapping[str, Any]) -> Iterator[str]:
    if not result["targets"]:
        return
    yield "| Target | At least | Measured | |"
    yield "|---|---|---|---|"
    for target in result["targets"]:
        verdict = "met" if target["met"] else "**missed**"
        yield (
            f"| {target['what']} | {target['at_least']:g} | {target['measured']:.2f} | {verdict} |"
        )
    yield ""


def _memory(result: Mapping[str, Any]) -> Iterator[str]:
    if not result["memory"]:
        return
    yield "| Memory of the job | File, MB | Peak MiB | of it anonymous | |"
    yield "|---|---|---|---|---|"
    for run in result["memory"]:
        peaks = (run["peak"], run["peak_anonymous"])
        cells = " | ".join(f"{peak / MEBIBYTE:.0f}" for peak in peaks)
        verdict = "under 1 GiB" if run["peak"] < MEMORY_LIMIT else "**over 1 GiB**"
        yield f"| {run['case']} | {run['megabytes']:.0f} | {cells} | {verdict} |"
    yield ""


def _doubts(result: Mapping[str, Any]) -> Iterator[str]:
    for disagreement in result["disagreements"]:
        yield f"**The sides don't agree:** {disagreement}."
    loud = [
        f"{case} `{side}` ({figures['others']:.2f})"
        for case, sides in result["median"].items()
        for side, figures in sides.items()
        if figures["others"] > BUSY_CORES
    ]
    if loud:
        yield (
            "**Other processes were busy**, by so many cores, beside " + ", ".join(loud) + ": the "
            "wall times and ratios above are noise."
        )
    else:
        yield "No other process was busy beside them."
