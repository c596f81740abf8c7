"""From what the processes saw to a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.fleet.requests import Requests
from benchmarks.machine import described
from job.checkpoint import CheckpointUploader, Local, restore_newest
from job.ledger import Ledger, Progress
from job.lifecycle import StopToken
from job.storage import open_storage, probe

TENTHS: Final = 10


def per_event(root: str, work: Path) -> dict[str, dict[str, int]]:
    """Requests of one event each, on a store that nobody else uses."""
    requests, found = Requests(), {}
    storage = requests.watch(open_storage(f"{root}/run"))

    def counted(name: str) -> None:
        found[name] = requests.by_class()
        requests.sent.clear()

    ledger = Ledger.claim(storage, "run", version="bench", conditional_writes=probe(storage))
    counted("start of an attempt")
    ledger.heartbeat(Progress(step=1))
    counted("heartbeat")
    with CheckpointUploader(storage, ledger, StopToken(), keep=2, patience_seconds=60) as uploader:
        for step in range(1, 5):  # the first tidies, the last retires an older one
            folder = work / f"alone-{step}"
            folder.mkdir()
            for name in ("weights.bin", "optimizer.bin", "trainer_state.json"):
                (folder / name).write_bytes(b"0" * 100)
            requests.sent.clear()
            uploader.submit(Local(folder, step))
            uploader.settle(60)
    counted("checkpoint of 3 files, with the end of an older one")
    restore_newest(storage, ledger.record.checkpoints, work / "alone")
    counted("restore of 3 files")
    return found


def summed(shares: Sequence[Mapping[str, Any]], interval: float) -> dict[str, Any]:
    """All processes together."""
    begin, (storm_begin, storm_end) = shares[0]["begin"], shares[0]["storm"]
    settled = shares[0]["settled"]
    seconds: Counter[int] = Counter()
    stormy: Counter[int] = Counter()
    classes: Counter[str] = Counter()
    for second, name, answered_by_storm, count in (r for s in shares for r in s["requests"]):
        classes[name] += count
        seconds[int(second - begin)] += count
        if answered_by_storm:
            stormy[int(second - storm_begin)] += count
    every = interval / 2
    beats = [beat for share in shares for beat in share["beats"]]
    before = [beat for beat in beats if settled <= beat < storm_begin]
    after = [beat for beat in beats if beat >= storm_end + every]
    return {
        **{k: sum(s[k] for s in shares) for k in ("attempts", "committed", "restored")},
        "violations": [v for s in shares for v in s["violations"]],
        "requests": dict(sorted(classes.items())),
        "seconds": max(seconds) if seconds else 0,
        "busiest_second": max(seconds.values(), default=0),
        "storm_seconds": storm_end - storm_begin,
        "storm_requests_by_second": [stormy[n] for n in range(int(storm_end - storm_begin))],
        "last_start_seconds": settled - begin,
        "heartbeats_before_storm": by_tenth(before, every),
        "heartbeats_after_storm": by_tenth(after, every),
    }


def by_tenth(moments: Sequence[float], every: float) -> list[int]:
    """How many fall into each tenth of the interval: all in one is a herd."""
    counts = Counter(int(moment % every / every * TENTHS) for moment in moments)
    return [counts[n] for n in range(TENTHS)]


def _spread(counts: Sequence[int]) -> str:
    if not sum(counts):
        return "none were seen"
    share = max(counts) / sum(counts)
    return f"{', '.join(map(str, counts))} (the fullest tenth has {share:.0%})"


def markdown(result: Mapping[str, Any]) -> str:
    """The result for people."""
    fleet, setup, summary = result["fleet"], result["setup"], result["summary"]
    names = ("PUT", "GET", "HEAD", "LIST", "DELETE", "other")
    rows = [
        *result["per_event"].items(),
        ("**this fleet, all of it**", fleet["requests"]),
        ("`status --all`", summary["requests"]),
    ]
    storm = fleet["storm_requests_by_second"]
    return "\n".join(
        [
            f"# {setup['runs']} runs at once, {result['store']} store",
            "",
            (
                f"A save every {setup['interval']:.3g} s, a heartbeat in half of that, "
                f"{setup['saves']} saves a run, {setup['processes']} processes, "
                f"{described(result['machine'])}. {result['date']}."
            ),
            "",
            (
                f"- Attempts {fleet['attempts']}, checkpoints committed {fleet['committed']}, "
                f"restored {fleet['restored']}, in {fleet['seconds']} s. **Violations: "
                f"{len(fleet['violations'])}**."
            ),
            *(f"  - {violation}" for violation in fleet["violations"][:10]),
            (
                f"- All began in the same second; the last one had its run after "
                f"{fleet['last_start_seconds']:.0f} s (these cores run clients and store)."
            ),
            f"- Busiest second: {fleet['busiest_second']} requests.",
            (
                f"- Storm of 503 for {fleet['storm_seconds']:g} s, requests in each second: "
                f"{', '.join(map(str, storm))}."
            ),
            *(
                f"- Heartbeats {when} the storm, by tenth of their interval: "
                f"{_spread(fleet[f'heartbeats_{when}_storm'])}."
                for when in ("before", "after")
            ),
            f"- `status --all`: {summary['runs']} in {summary['seconds']:.1f} s.",
            (
                f"- Series of a run: {result['series_per_run']}; of all: "
                f"{result['series_per_run'] * setup['runs']}."
            ),
            "",
            f"| Requests | {' | '.join(names)} |",
            "|---" * (len(names) + 1) + "|",
            *(
                f"| {what} | " + " | ".join(f"{counts.get(name, 0):g}" for name in names) + " |"
                for what, counts in rows
            ),
            "",
        ]
    )
