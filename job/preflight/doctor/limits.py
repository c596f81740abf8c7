"""What the container is given: its memory, and the time it gets to end."""

from __future__ import annotations

import os
from typing import Final

from job.cgroups import Cgroups
from job.checkpoint.grace import LEAVING_SECONDS
from job.errors import Problem, SettingsError
from job.preflight.checks import Finding
from job.preflight.doctor.needs import Needs

_MICRO_BATCH_SECONDS: Final = 5.0
"""Assumed: training stops at the end of one."""
_WRITE_RATE: Final = 200e6
"""Assumed: bytes a second of the work volume."""
_UPLOAD_RATE: Final = 100e6
"""Assumed: bytes a second to the store, most of a link of 1 Gbit/s."""
_LEAST_GRACE: Final = 25.0
"""Below it a request that hangs for its connect timeout and is sent again may not make it."""


def memory(
    cgroups: Cgroups, needs: Needs | None, *, gpu: bool, processes: int = 1
) -> str | Finding:
    """Raises `SettingsError` where the limit is below what can't be given back."""
    limit, source = _least(cgroups)
    there = f"{limit / 1e9:.1f} GB ({source})"
    needs = needs or Needs()
    needed = needs.memory(gpu=gpu, processes=processes)
    said = f"{there}, about {needed / 1e9:.1f} GB are needed"
    if processes > 1:
        said += f" by {processes} processes"
    if limit < needed:
        raise SettingsError(Problem("memory", said, "raise the container's memory limit"))
    # Read from one file for all of them, or held by each.
    size = (needs.weights or 0) * (1 if gpu else processes)
    if limit < needed + size:
        weights = f"{size / 1e9:.1f} GB of weights"
        why = "they are read in pieces, slowly" if gpu else "on a CPU they stay there"
        return Finding("warning", f"{said}, and {weights} don't fit beside it: {why}")
    return said


def _least(cgroups: Cgroups) -> tuple[int, str]:
    """Bytes, and what sets them: a limit may be above what the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limited = cgroups.memory_limit()
    if limited is None or limited[0] > machine:
        return machine, "all that the machine has"
    return limited[0], str(limited[1])


def grace(seconds: float, needs: Needs) -> str | Finding:
    """`FORGE_GRACE_SECONDS` against an estimate; a run measures what it takes and warns too.

    What the pod is really given stands in its spec alone, which a container doesn't see.
    """
    needed, parts = _grace_needed(needs)
    unseen = "the pod's terminationGracePeriodSeconds can't be seen from here: it must be the same"
    if seconds < needed:
        hint = f"raise FORGE_GRACE_SECONDS and terminationGracePeriodSeconds to {needed:.0f}"
        said = f"{seconds:.0f} s are set, a preemption may take {needed:.0f} s ({parts})"
        return Finding("warning", f"{said}: {hint}; {unseen}")
    return f"{seconds:.0f} s, at least {needed:.0f} s are wanted ({parts}); {unseen}"


def _grace_needed(needs: Needs) -> tuple[float, str]:
    if needs.checkpoint is None:
        return _LEAST_GRACE, "the size of a checkpoint is not known here"
    size = needs.checkpoint
    saving = size / _WRITE_RATE + size / _UPLOAD_RATE
    estimate = _MICRO_BATCH_SECONDS + saving + LEAVING_SECONDS
    parts = f"a checkpoint of {size / 1e6:.0f} MB at {_UPLOAD_RATE / 1e6:.0f} MB/s, assumed"
    return max(_LEAST_GRACE, estimate), parts
