"""From what was measured to tables and verdicts. Seconds throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from benchmarks.machine import described

COST_TO_BARE: Final = 1.3
COST_TO_RIVAL: Final = 0.5
DURABLE_TO_FLOOR: Final = 1.2
EXIT_AFTER_DURABLE: Final = 0.5
EXIT_OF_A_PHASE: Final = 2.0
RESTORE_TO_RAW: Final = 1.2
LEDGER_SHARE: Final = 0.001
"""The targets: each is held against what was measured in the same run."""


def whole_cost(window: dict[str, Any]) -> float:
    """The stall, and by how much the steps beside the upload took longer than those without."""
    slower = sum(beside - alone for beside, alone in window["pairs"])
    cost: float = window["stall"] + slower * window["steps_a_slice"]
    return cost


def costs_by_side(windows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians by side."""
    names = dict.fromkeys(window["side"] for window in windows)
    return {
        name: {
            "cost": median(whole_cost(w) for w in windows if w["side"] == name),
            "stall": median(w["stall"] for w in windows if w["side"] == name),
            "write": median(w["write"] for w in windows if w["side"] == name),
            "behind": median(
                len(w["pairs"]) * w["steps_a_slice"] for w in windows if w["side"] == name
            ),
            "unfinished": sum(not w["finished"] for w in windows if w["side"] == name),
            "checkpoints": sum(w["side"] == name for w in windows),
        }
        for name in names
    }


def durable_ratio(stop: dict[str, float], fastest_upload: float) -> float:
    """SIGTERM to durable, beside the same boundary and write with the fastest upload."""
    return stop["durable"] / (stop["durable"] - stop["upload"] + fastest_upload)


def markdown(result: dict[str, Any]) -> str:
    store = result.get("store", "embedded")
    where = f"{described(result['machine'])}, store: {store}"
    lines = ["# What a checkpoint costs", "", f"{result['date']}, {where}. Medians."]
    for part, table in _TABLES.items():
        if part in result:
            lines += ["", *table(result[part])]
    return "\n".join([*lines, ""])


def _verdict(text: str, value: float, limit: float, form: str = ".2f") -> str:
    said = "met" if value <= limit else "MISSED"
    return f"{text}: {value:{form}} (at most {limit:g}): {said}"


def _cost(part: dict[str, Any]) -> Iterator[str]:
    yield "## To training: stall, and slowdown of the steps that follow"
    yield ""
    yield "| MB | side | whole cost s | stall s | steps beside the upload | checkpoints |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for size, sides in part.items():
        for name, found in sides.items():
            if name != "windows":
                cut = f", {found['unfinished']} cut off" if found["unfinished"] else ""
                yield (
                    f"| {size} | {name} | {found['cost']:.3f} | {found['stall']:.3f} | "
                    f"{found['behind']:.0f}{cut} | {found['checkpoints']} |"
                )
    yield ""
    for size, sides in part.items():
        ours, bare, rival = (sides[name]["cost"] for name in ("ours", "bare", "rival"))
        yield "- " + _verdict(f"{size} MB, ours to a bare save", ours / bare, COST_TO_BARE)
        yield "- " + _verdict(f"{size} MB, ours to the rival", ours / rival, COST_TO_RIVAL)


def _stop(part: dict[str, Any]) -> Iterator[str]:
    yield "## At a stop"
    yield ""
    for name, found in part["training"].items():
        stops, fastest = found["stops"], found["fastest_upload"]
        size = median(stop["megabytes"] for stop in stops)
        seconds = median(stop["durable"] for stop in stops)
        yield f"- {name}, {size:.0f} MB: SIGTERM to durable {seconds:.2f} s"
        ratio = median(durable_ratio(stop, fastest) for stop in stops)
        yield "- " + _verdict(f"{name}, to the floor", ratio, DURABLE_TO_FLOOR)
        after = median(stop["exit_after_durable"] for stop in stops)
        yield "- " + _verdict(f"{name}, exit after durable, s", after, EXIT_AFTER_DURABLE)
    for phase, found in part["phases"].items():
        if found is None:
            yield f"- in `{phase}`: over before it could be seen"
        else:
            text = f"exit in `{phase}`, s (code {found['code']})"
            yield "- " + _verdict(text, found["exit"], EXIT_OF_A_PHASE)


def _restore(part: dict[str, Any]) -> Iterator[str]:
    yield "## Restore"
    yield ""
    for size, found in part.items():
        text = f"{size} MB: {found['ours']:.2f} s, raw and hashed {found['raw']:.2f} s, ratio"
        yield "- " + _verdict(text, found["ours"] / found["raw"], RESTORE_TO_RAW)


def _ledger(part: dict[str, Any]) -> Iterator[str]:
    yield "## The record"
    yield ""
    for attempts, found in part.items():
        text = f"{attempts} attempts: a swap takes {found['seconds'] * 1e3:.1f} ms, share of a step"
        yield "- " + _verdict(text, found["share_of_a_step_of_1_s"], LEDGER_SHARE, ".4%")


def _uploaders(part: dict[str, Any]) -> Iterator[str]:
    yield "## Uploaders: a folder, seconds (start-up of other programs included)"
    yield ""
    for size, ways in part.items():
        for name, seconds in ways.items():
            shown = f"{seconds:.2f}" if isinstance(seconds, float) else seconds
            yield f"- {size} MB, {name}: {shown}"


_TABLES: Final = {
    "cost": _cost,
    "stop": _stop,
    "restore": _restore,
    "ledger": _ledger,
    "uploaders": _uploaders,
}
