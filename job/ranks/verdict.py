"""Which worker's exit code becomes the pod's, and what to report where no worker could."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Final

from job.errors import EXIT_CODES, JobError, Preempted, Unavailable
from job.lifecycle import SIGNALS

_BOOTING: Final = tuple(-number for number in SIGNALS)
"""How a worker ends whose signal comes before it handles any."""

_VERDICTS: Final = tuple(code for code, (_, action) in EXIT_CODES.items() if action == "FailJob")
_ORDER: Final = (*_VERDICTS, 76, 75, 69)
"""The first that any worker ended with is the pod's: what can't be mended, then what is nobody's
fault, whose neighbours may end with anything."""

_OWNERS: Final = (Unavailable.exit_code, JobError.exit_code)
"""Ends of rank 0 that others may know of as nothing but a stop that all have agreed on."""


def end_of_pod(codes: Mapping[int, int], *, signalled: bool, owns_run: bool) -> tuple[int, str]:
    """The pod's code and message, of workers that ended for a reason of their own, by local rank.

    One that a signal caught while it started has nothing to save: it was preempted like the others.
    With `owns_run` the first is rank 0, which alone knows why a run without a signal has failed.
    """
    caught = {rank for rank, code in codes.items() if signalled and code in _BOOTING}
    codes = {**codes, **dict.fromkeys(caught, Preempted.exit_code)}
    if owns_run and not signalled and codes.get(0) in _OWNERS:
        codes = {rank: code for rank, code in codes.items() if code != Preempted.exit_code}
    verdict = _verdict(list(codes.values()))
    if 0 in caught and verdict == Preempted.exit_code:
        return verdict, f"{Preempted.title}: the signal came while worker 0 started"
    return verdict, _message(codes, verdict)


def _verdict(codes: Sequence[int]) -> int:
    for code in _ORDER:
        if code in codes:
            return code
    return JobError.exit_code if any(codes) else 0


def _message(codes: Mapping[int, int], verdict: int) -> str:
    """The pod's message is worker 0's, unless that was killed, or ended for no reason of its own;
    `codes` leaves out who has ended because we told it to."""
    if codes.get(0) == verdict:
        return ""
    rank = 0 if codes.get(0, 0) < 0 else _decisive(codes, verdict)
    if codes[rank] < 0:
        return f"worker {rank} was killed by {signal.Signals(-codes[rank]).name}"
    return f"worker {rank} ended with {codes[rank]}: its log says why"


def _decisive(codes: Mapping[int, int], verdict: int) -> int:
    failed = [rank for rank, code in codes.items() if code]
    return next((rank for rank in failed if codes[rank] == verdict), failed[0])
